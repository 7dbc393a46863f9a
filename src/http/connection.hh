#pragma once
// One client of the server. It reads a request, waits for its answer, and then reads the next:
//
//   reading --request--> answering --answer--> reading          (keep-alive)
//                            |   \--answer--> closing --sent--> gone
//                            |--events-----> streaming --closed--> closing
//                            \--upgrade----> handing over --101 sent--> gone (the stream lives on)
//
// From every state: the client leaves, breaks the protocol or stalls -> gone. Requests that come
// while one is being answered wait in the (bounded) input. Owned by the Server; responders and
// event streams hold it weakly.
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "http/codec.hh"
#include "http/handed_stream.hh"
#include "http/responder.hh"
#include "os/loop.hh"

namespace godwit::http {

class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  struct Owner {
    std::function<void(Request, Responder)> dispatch;
    std::function<void(Connection&)> gone;  // forgets this connection; called once
  };

  Connection(os::Loop& loop, std::unique_ptr<os::ByteStream> stream,
             std::shared_ptr<const Caller> caller, const Owner& owner);
  ~Connection();
  void start();
  const Caller& caller() const { return *caller_; }
  void leave();  // at once, whatever is under way

  // For Responder and EventStream.
  bool awaits(std::uint64_t request) const;
  void answer(const Response& response);
  void start_events(const std::shared_ptr<EventStream>& events);
  bool push_event(std::string_view name, std::string_view data, std::string_view id);
  void end_events();
  void upgrade(std::string_view protocol, Responder::OnUpgraded on_upgraded);

 private:
  enum class State { reading, answering, streaming, closing, handing_over, gone };

  void read_input();
  void begin_request();
  void parse_input();
  void dispatch(Request request);
  void refuse(const Refusal& refusal);
  void send(std::string_view text);
  void write_output();
  void all_sent();
  void hand_over();
  void arm_timer();
  void timer_fired();

  os::Loop& loop_;
  const Owner& owner_;
  std::unique_ptr<HandedStream> stream_;
  std::shared_ptr<const Caller> caller_;
  State state_ = State::reading;
  RequestParser parser_;
  Bytes input_;
  std::string output_;
  std::size_t output_sent_ = 0;
  std::uint64_t request_ = 0;  // number of the request being answered
  bool keep_alive_ = true;
  bool begun_ = false;     // some of a request is here
  bool parsing_ = false;   // inside parse_input()
  bool finished_ = false;  // the sending direction was ended
  std::weak_ptr<EventStream> events_;
  Responder::OnUpgraded on_upgraded_;
  os::Loop::Timer timer_;
  os::Loop::Timer soon_;  // what must not happen inside the current call
};

}  // namespace godwit::http

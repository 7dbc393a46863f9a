#pragma once
// Client of the QEMU Machine Protocol (docs/interop/qmp-spec.txt of QEMU): JSON objects, one per
// line, over the vm's unix socket. One connection = one Qmp; after `closed` make a new one. QEMU is
// not trusted (a guest may have broken into it): what it sends is bounded and checked.
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "os/byte_stream.hh"
#include "os/fd.hh"
#include "os/loop.hh"

namespace godwit::qemu {

// Longest message accepted: query-cpu-definitions of QEMU 7.2 is the longest reply, 100 KiB.
inline constexpr std::size_t kMaxQmpMessage = 8U << 20;
// QEMU's main loop may be held up for seconds by a loaded host; longer means it hangs.
inline constexpr Nanoseconds kQmpCommandTimeout = seconds(20);
inline constexpr Nanoseconds kQmpHelloTimeout = seconds(20);
// Commands waiting for their reply or for the greeting.
inline constexpr std::size_t kMaxQmpPending = 256;

struct QmpEvent {
  std::string name;  // "STOP", "RESUME", "MIGRATION", "SHUTDOWN", ...
  const nlohmann::json& data;
  Instant happened;  // as QEMU stamped it: it may have waited for us
};

class Qmp final {
 public:
  using Reply = std::move_only_function<void(Result<nlohmann::json>)>;
  // Any of them may destroy the Qmp; then none is called any more.
  struct Events {
    // Greeting seen and capabilities negotiated.
    std::move_only_function<void()> ready;
    std::move_only_function<void(const QmpEvent&)> event;
    // Called once, after every waiting command has got its error.
    std::move_only_function<void(std::string reason)> closed;
  };

  // kOutOfBand: commands may be answered while QEMU's main loop hangs (see execute_out_of_band);
  // kTakenOver: a connection that was negotiated so by who had it before.
  enum class Mode { kPlain, kOutOfBand, kTakenOver };
  // `vm` names the vm in every error.
  Qmp(os::Loop& loop, std::unique_ptr<os::ByteStream> stream, std::string vm, Events events,
      Mode mode = Mode::kPlain);
  ~Qmp();
  Qmp(const Qmp&) = delete;
  Qmp& operator=(const Qmp&) = delete;

  static std::unique_ptr<Qmp> connect(os::Loop& loop, const std::string& path, std::string vm,
                                      Events events);

  // `reply` gets the "return" value, or an error that names command and vm: QEMU's own text, the
  // time-out, or the connection's end. It is called once and never from inside execute(); soon
  // after this was destroyed, if that comes first: see lifetime(). May be called before `ready`: it
  // waits its turn.
  void execute(std::string_view command, nlohmann::json arguments, Reply reply,
               Nanoseconds timeout = kQmpCommandTimeout);
  // "exec-oob": for the few commands that allow it.
  void execute_out_of_band(std::string_view command, nlohmann::json arguments, Reply reply);
  // getfd: QEMU keeps a duplicate of the descriptor under this name, in place of one it had.
  void pass_descriptor(std::string_view name, os::Fd descriptor, Reply reply);

  bool is_ready() const { return state_ == State::ready; }
  bool is_closed() const { return state_ == State::closed; }
  const std::string& vm() const { return vm_; }
  os::Loop& loop() { return loop_; }
  // Expires with the Qmp: for who wants to use it later, or after an error.
  std::weak_ptr<const bool> lifetime() const { return alive_; }

 private:
  // greeting --QMP greeting--> negotiating --reply of qmp_capabilities--> ready; any --> closed
  enum class State { greeting, negotiating, ready, closed };
  struct Pending {
    std::string command;
    Reply reply;
    os::Loop::Timer timer;
  };

  struct Outgoing {
    std::string line;
    os::Fd descriptor;  // goes along
  };
  struct Request {
    std::string_view verb, command;
    nlohmann::json arguments;
    os::Fd descriptor;
  };

  void request(Request request, Reply reply, Nanoseconds timeout);
  void readable();
  bool take_lines();                    // false: this object is gone
  void message(std::string_view line);  // may destroy this object
  void response(const nlohmann::json& object);
  void deliver_event(const nlohmann::json& object);
  void negotiate();
  void negotiated(Result<nlohmann::json> answer);
  void send(Outgoing outgoing);
  void flush();
  void finish(std::uint64_t id, Result<nlohmann::json> result);
  void close(std::string reason);

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> stream_;
  std::string vm_;
  Events events_;
  Mode mode_;
  State state_ = State::greeting;
  std::string input_;
  std::size_t searched_ = 0;  // no line ends in this much of it
  std::deque<Outgoing> output_, waiting_for_ready_;
  std::uint64_t next_id_;
  std::map<std::uint64_t, Pending> pending_;
  os::Loop::Timer hello_timer_;
  // Expires with this object: callbacks and timers look at it after each call outwards.
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu

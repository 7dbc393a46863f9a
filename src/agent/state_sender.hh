#pragma once
// The messages of a component's state on their way to the target: numbered, as fast as the cap
// lets them, told again in the next session if they were not answered. To a target of an older
// protocol they go in hex. A part of ComponentSource. Control thread.
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/peers.hh"
#include "agent/state_message.hh"
#include "os/loop.hh"
#include "stream/token_bucket.hh"

namespace godwit::agent {

class StateSender final {
 public:
  struct Events {
    std::function<void()> answered;  // there may be room for more
    std::function<void(const std::string& why)> failed;
  };
  StateSender(os::Loop& loop, Peers& peers, MigrationId id, std::string to, Events events);

  void set_bandwidth(std::optional<BitRate> cap);
  // Until more may be sent by the cap; nothing: now. What is sent all the same is not held up.
  std::optional<Nanoseconds> wait();
  bool has_room() const;  // else when some are answered
  bool is_idle() const { return unanswered_.empty(); }
  void send(BytesView message, bool is_last);
  void send_again();  // in a new session

  struct Sent {
    std::uint64_t messages_bytes = 0;  // before they are compressed
    std::uint64_t bytes = 0;           // what crosses
    BitRate rate{};                    // of these, lately; zero: not known
  };
  Sent sent() const;

 private:
  struct Message {
    std::uint64_t number = 0;  // from 1
    Bytes body{};              // as it crosses; none: nothing but that it is the last
    bool is_last = false;
    unsigned failures = 0;
  };
  void ask(const Message& message);
  void told(std::uint64_t number, const Result<nlohmann::json>& reply);
  void count(std::size_t bytes);

  os::Loop& loop_;
  Peers& peers_;
  const MigrationId id_;
  const std::string to_;
  const Events events_;
  std::optional<StatePacker> packer_;  // none: in hex
  std::deque<Message> unanswered_;
  std::uint64_t next_number_ = 1;
  std::uint64_t messages_bytes_ = 0, bytes_ = 0;
  stream::TokenBucket bucket_;
  Instant counted_since_{};
  std::uint64_t counted_ = 0;  // bytes
  BitRate rate_{};             // before that
  os::Loop::Timer retry_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// Opens lanes to a host, again and again, each time after a longer wait. Control thread.
#include <functional>
#include <memory>
#include <string>

#include "agent/peers.hh"
#include "os/loop.hh"

namespace godwit::agent {

class LaneDialer final {
 public:
  struct Events {
    std::function<void(std::unique_ptr<os::ByteStream>)> opened;
    std::function<void(std::string)>
        failed{};  // the first could not be opened; if set, none follows
  };
  LaneDialer(os::Loop& loop, Peers& peers, std::string to, Events events);

  void dial();
  void dial_later();
  void stop() { timer_.reset(); }

 private:
  os::Loop& loop_;
  Peers& peers_;
  std::string to_;
  Events events_;
  Nanoseconds backoff_;
  bool was_open_ = false;
  os::Loop::Timer timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

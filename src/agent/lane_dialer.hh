#pragma once
// Opens the lanes of a transfer to a host: the first, then all others at once; each again and
// again, each time after a longer wait. Control thread.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/peers.hh"
#include "os/loop.hh"
#include "stream/transfer_frame.hh"

namespace godwit::agent {

class LaneDialer final {
 public:
  struct Events {
    std::function<void(stream::LaneNumber, std::unique_ptr<os::ByteStream>)> opened;
    std::function<void(std::string)>
        failed{};  // the first could not be opened; if set, none follows
  };
  LaneDialer(os::Loop& loop, Peers& peers, std::string to, std::size_t lanes, Events events);

  void dial() { dial(0); }
  void dial_later(stream::LaneNumber lane);
  void stop();

 private:
  struct Lane {
    Nanoseconds backoff{};
    os::Loop::Timer timer;
  };
  void dial(stream::LaneNumber lane);
  void opened(stream::LaneNumber lane, std::unique_ptr<os::ByteStream> stream);

  os::Loop& loop_;
  Peers& peers_;
  std::string to_;
  Events events_;
  std::vector<Lane> lanes_;
  bool was_open_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

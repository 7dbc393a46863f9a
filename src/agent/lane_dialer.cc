#include "agent/lane_dialer.hh"

#include <algorithm>

namespace godwit::agent {
namespace {

constexpr Nanoseconds kFirstBackoff = milliseconds(200);
constexpr Nanoseconds kMostBackoff = seconds(2);

}  // namespace

LaneDialer::LaneDialer(os::Loop& loop, Peers& peers, std::string to, Events events)
    : loop_(loop),
      peers_(peers),
      to_(std::move(to)),
      events_(std::move(events)),
      backoff_(kFirstBackoff) {}

void LaneDialer::dial_later() {
  timer_ = loop_.after(backoff_, [this] { dial(); });
}

void LaneDialer::dial() {
  peers_.open_lane(to_, [this, alive = std::weak_ptr(alive_)](auto lane) {
    if (alive.expired()) return;
    if (lane) {
      backoff_ = kFirstBackoff;
      was_open_ = true;
      return events_.opened(std::move(*lane));
    }
    if (!was_open_ && events_.failed) {
      return events_.failed(fmt::format("cannot open a lane to {}: {}", to_, lane.error().text));
    }
    backoff_ = std::min(backoff_ * 2, kMostBackoff);
    dial_later();
  });
}

}  // namespace godwit::agent

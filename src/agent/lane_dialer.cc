#include "agent/lane_dialer.hh"

#include <algorithm>

namespace godwit::agent {
namespace {

constexpr Nanoseconds kFirstBackoff = milliseconds(200);
constexpr Nanoseconds kMostBackoff = seconds(2);

}  // namespace

LaneDialer::LaneDialer(os::Loop& loop, Peers& peers, std::string to, std::size_t lanes,
                       Events events)
    : loop_(loop), peers_(peers), to_(std::move(to)), events_(std::move(events)), lanes_(lanes) {
  for (Lane& lane : lanes_) lane.backoff = kFirstBackoff;
}

void LaneDialer::dial_later(stream::LaneNumber lane) {
  lanes_[lane].timer = loop_.after(lanes_[lane].backoff, [this, lane] { dial(lane); });
}

void LaneDialer::stop() {
  for (Lane& lane : lanes_) lane.timer.reset();
}

void LaneDialer::dial(stream::LaneNumber lane) {
  peers_.open_lane(to_, [this, lane, alive = std::weak_ptr(alive_)](auto stream) {
    if (alive.expired()) return;
    if (stream) return opened(lane, std::move(*stream));
    if (!was_open_ && events_.failed) {
      return events_.failed(fmt::format("cannot open a lane to {}: {}", to_, stream.error().text));
    }
    lanes_[lane].backoff = std::min(lanes_[lane].backoff * 2, kMostBackoff);
    dial_later(lane);
  });
}

void LaneDialer::opened(stream::LaneNumber lane, std::unique_ptr<os::ByteStream> stream) {
  lanes_[lane].backoff = kFirstBackoff;
  if (!std::exchange(was_open_, true)) {
    for (stream::LaneNumber other = 1; other < lanes_.size(); ++other) dial(other);
  }
  events_.opened(lane, std::move(stream));
}

}  // namespace godwit::agent

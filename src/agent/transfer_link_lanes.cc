// The transfer's lanes, and how much they may carry.
#include "agent/transfer_link.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

namespace godwit::agent {

using stream::LaneNumber;

namespace {

constexpr std::size_t kLaneRead = 256 << 10;
// Bytes of a lane taken per wake-up before other events get their turn.
constexpr std::size_t kLaneBurst = 4 << 20;

// A cap is of what the link carries; the transfer counts its own bytes. Of a packet of 1,500 bytes
// headers of IP and TCP are 52, of a TLS record of 16 KiB and 22 bytes the latter.
constexpr double kPayloadShare = 1448.0 / 1500 * 16384 / (16384 + 22);

// Two of the transfer's pings.
constexpr Nanoseconds kDoubt = stream::kPingInterval * 2 + milliseconds(500);

}  // namespace

void TransferLink::use_lane(LaneNumber number, std::unique_ptr<os::ByteStream> stream,
                            BytesView early, std::size_t of) {
  drop_lane(number, "replaced by a newer lane");
  Lane& lane = lanes_[number];
  lane.stream = std::move(stream);
  if (is_source()) lane.pace = std::make_unique<PacedSocket>(loop_, *lane.stream, of);
  transfer_.lane_up(number, loop_.now());
  if (!early.empty()) {
    if (const auto fault = transfer_.feed(number, early, loop_.now())) {
      return drop_lane(number, fault->why.text);
    }
  }
  // One that was dropped lives until the loop's next turn.
  const auto is_this = [this, number, stream = lane.stream.get()] {
    const auto found = lanes_.find(number);
    return found != lanes_.end() && found->second.stream.get() == stream;
  };
  lane.stream->start({.readable =
                          [this, number, is_this] {
                            if (is_this()) read_lane(number);
                          },
                      .writable =
                          [this, number, is_this] {
                            if (!is_this()) return;
                            lanes_[number].is_full = false;
                            pump();
                          },
                      .closed =
                          [this, number, is_this](const std::string& reason) {
                            if (is_this())
                              drop_lane(number, reason.empty() ? "closed by the peer" : reason);
                          }});
  pump();
}

void TransferLink::read_lane(LaneNumber number) {
  static thread_local Bytes buffer(kLaneRead);
  std::size_t taken = 0;
  while (lanes_.contains(number) && taken < kLaneBurst) {
    const std::size_t count = lanes_[number].stream->read(buffer);
    if (count == 0) break;
    taken += count;
    if (const auto fault = transfer_.feed(number, BytesView(buffer).first(count), loop_.now())) {
      return drop_lane(number, fault->why.text);
    }
  }
  if (taken >= kLaneBurst) {
    loop_.post([this, number, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) read_lane(number);
    });
  }
  pump();
}

void TransferLink::drop_lane(LaneNumber number, const std::string& reason) {
  const auto found = lanes_.find(number);
  if (found == lanes_.end()) return;
  // The stream may be calling us: let it go after it has returned.
  found->second.pace.reset();
  loop_.post([dropped = std::shared_ptr<os::ByteStream>(std::move(found->second.stream))] {});
  lanes_.erase(found);
  transfer_.lane_down(number, loop_.now());
  arm();
  if (!transfer_.failed() && events_.lane_lost) events_.lane_lost(number, reason);
}

void TransferLink::doubt_lanes() {
  doubt_ = loop_.after(kDoubt, [this, since = loop_.now()] {
    for (LaneNumber number = 0; number < stream::kMaxLanes; ++number) {
      if (lanes_.contains(number) && transfer_.last_heard(number) < since) {
        drop_lane(number, "nothing heard since the path changed");
      }
    }
  });
}

ByteCount TransferLink::in_network() const {
  ByteCount all;
  for (const auto& [number, lane] : lanes_) {
    if (lane.pace) all.bytes += lane.pace->in_network().bytes;
  }
  return all;
}

// In turns, so that lanes with room share what there is.
void TransferLink::write_lanes() {
  for (bool more = true; more;) {
    more = false;
    for (auto& [number, lane] : lanes_) {
      if (lane.is_full) continue;
      const BytesView next = transfer_.peek(number, loop_.now());
      if (next.empty()) continue;
      const std::size_t written = lane.stream->write(next);
      transfer_.advance(number, written);
      if (lane.pace) lane.pace->wrote();
      lane.is_full = written < next.size();
      more = more || !lane.is_full;
    }
  }
}

void TransferLink::set_bandwidth(std::optional<BitRate> cap) {
  if (cap) {
    cap->bits_per_second =
        static_cast<std::uint64_t>(static_cast<double>(cap->bits_per_second) * kPayloadShare);
  }
  cap_ = cap;
  apply_caps();
}

void TransferLink::hold_back(std::optional<BitRate> cap) {
  if (cap != std::exchange(writes_cap_, cap)) apply_caps();
}

void TransferLink::apply_caps() {
  std::optional<BitRate> cap = cap_ ? cap_ : writes_cap_;
  if (cap_ && writes_cap_) cap = std::min(*cap_, *writes_cap_);
  transfer_.set_bandwidth(cap, loop_.now());
  arm();
}

}  // namespace godwit::agent

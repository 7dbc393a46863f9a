#pragma once
// One direction of an emulated link: a drop-tail byte queue in front of a rate limiter, then a line
// that delays. Pure: it is given frames and `now`, and asked what is due. One owner, one thread.
//
//   offer -> mtu? -> cut? -> loss? -> [ queue | rate ] -> ( delay +- jitter ) -> release
//
// The rate is a virtual clock (Zhang, "VirtualClock", SIGCOMM 1990; what netem's rate option does):
// a frame's transmission starts at max(now, end of the previous one) and takes size / rate, so no
// credit accrues while the link is idle and no burst ever passes faster than the rate. The bytes in
// the queue follow from how far that clock is ahead of `now`: there is no second book to keep.
#include <array>
#include <optional>
#include <queue>
#include <random>
#include <vector>

#include "base/bytes.hh"
#include "lab/link_quality.hh"

namespace godwit::lab {

enum class DropCause : std::uint8_t { queue, loss, mtu, cut };
constexpr std::size_t kDropCauses = 4;
// What a frame carries, so that a dropped wire datagram can be told from a dropped TCP segment.
enum class Transport : std::uint8_t { udp, tcp, other };
constexpr std::size_t kTransports = 3;
Transport transport_of(BytesView ethernet_frame);

struct DirectionCounters {
  std::uint64_t frames = 0;  // released at the far end
  std::uint64_t bytes = 0;
  // drops[cause][transport], in frames.
  std::array<std::array<std::uint64_t, kTransports>, kDropCauses> drops{};

  std::uint64_t dropped(DropCause cause) const;
};

// What may be inside a link without a rate, or one whose delay is long: more is a queue drop.
constexpr std::uint64_t kMaxInFlightBytes = 256U << 20U;

class Direction final {
 public:
  struct Released {
    BytesView frame;  // valid until the next call of any other member
    Instant due;
  };

  Direction(const LinkQuality& quality, std::uint64_t seed);

  // Takes a frame (copied) or names why it was dropped; the drop is counted.
  std::optional<DropCause> offer(BytesView frame, Instant now);
  std::optional<Instant> next_release() const;
  // The earliest frame whose time has come; call until it gives nothing.
  std::optional<Released> release(Instant now);

  // Frames under way keep their release times; what waits is sent at the new rate from now on.
  void set_quality(const LinkQuality& quality, Instant now);
  // What is queued and under way is lost (counted as cut), and all that comes until heal().
  void cut();
  void heal() { up_ = true; }

  bool is_up() const { return up_; }
  const LinkQuality& quality() const { return quality_; }
  const DirectionCounters& counters() const { return counters_; }
  std::uint64_t queued_bytes(Instant now) const;                // not yet on the line
  std::uint64_t in_flight_bytes() const { return in_flight_; }  // queued and on the line

 private:
  struct Entry {
    Instant due;
    std::uint64_t order;
    std::size_t slot;
    bool operator>(const Entry& other) const {
      return due != other.due ? due > other.due : order > other.order;
    }
  };

  DropCause drop(DropCause cause, BytesView frame);
  Nanoseconds sampled_delay();
  std::size_t store(BytesView frame);

  LinkQuality quality_;
  bool up_ = true;
  std::mt19937_64 random_;
  Instant line_free_{};  // the virtual clock: when the last accepted frame is through
  Instant last_due_{};   // for links that keep the order
  std::uint64_t next_order_ = 0;
  std::uint64_t in_flight_ = 0;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> line_;
  std::vector<Bytes> slots_;  // frames under way; freed slots keep their memory
  std::vector<std::size_t> free_slots_;
  DirectionCounters counters_;
};

}  // namespace godwit::lab

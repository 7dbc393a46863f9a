#pragma once
// What the probe saw, and the figures made of it for any window of time. Pure: events with their
// times go in, numbers come out.
#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/units.hh"
#include "lab/guest/netstat.hh"
#include "lab/guest/protocol.hh"
#include "lab/guest/sequence_log.hh"

namespace godwit::lab {

// Nanoseconds since 1970 by the host's clock.
using UnixTime = std::chrono::nanoseconds;

struct Window {
  std::string name;
  UnixTime start{};
  UnixTime end{};
  Nanoseconds length() const { return end - start; }
};

struct Gap {
  Nanoseconds length{};
  UnixTime start{};
  Nanoseconds in_vm{};  // at most so much of it, by the vm's clock, which stands still in a pause
};

// Consecutive numbers that never arrived.
struct Loss {
  UnixTime
      at{};  // when the next lower one arrived; of what the guest names: when the first was sent
  std::uint64_t first = 0;
  std::uint64_t count = 0;
};

// The arrivals of one direction, in order of arrival.
class Arrivals final {
 public:
  // `vm_clock`: when the packets before it had left the vm.
  void add(UnixTime at, std::uint64_t sequence, Nanoseconds vm_clock);

  // The longest time between two arrivals that touches the window; the time after the last arrival
  // counts up to the window's end.
  Gap longest_gap(const Window& window) const;
  std::vector<Loss> losses(const Window& window) const;
  std::uint64_t lost(const Window& window) const;
  std::uint64_t duplicated(const Window& window) const { return count(duplicates_, window); }
  std::uint64_t reordered(const Window& window) const { return count(reorderings_, window); }
  std::uint64_t received() const { return log_.received(); }
  const SequenceLog& log() const { return log_; }

 private:
  static std::uint64_t count(const std::vector<UnixTime>& times, const Window& window);

  SequenceLog log_;
  std::vector<UnixTime> times_;  // of every arrival
  std::vector<Nanoseconds> vm_clocks_;
  std::vector<UnixTime> first_at_;  // by number; zero = not arrived
  std::vector<UnixTime> duplicates_;
  std::vector<UnixTime> reorderings_;
};

// What the guest's "report" says about this client.
struct GuestReport {
  std::uint64_t counter = 0;
  std::uint64_t counter_damaged = 0;
  std::uint64_t pages_damaged = 0;
  std::uint64_t skipped_ticks = 0;
  std::uint64_t send_failures = 0;
  TcpCounters tcp;
  UdpDrops udp_drops;
  std::vector<std::uint64_t> missing;
  std::vector<std::uint64_t> duplicated;
  std::vector<std::uint64_t> reordered;
};
std::optional<GuestReport> parse_guest_report(std::string_view line);

// Everything of one run.
class ProbeRecord final {
 public:
  explicit ProbeRecord(std::uint16_t per_second) : per_second_(per_second) {}

  void sent(UnixTime at);
  void received(UnixTime at, const Packet& packet);  // echo or stream
  void tcp_reset(UnixTime at) { resets_.push_back(at); }
  void tcp_mismatch(UnixTime at) { mismatches_.push_back(at); }
  void tcp_progress(UnixTime from, UnixTime to);  // no byte came in between though one was due

  std::uint64_t sent_count() const { return sent_at_.size(); }
  // The first number sent at or after `at`.
  std::uint64_t sequence_at(UnixTime at) const;
  const Arrivals& echoes() const { return echoes_; }
  const Arrivals& stream() const { return stream_; }

  // `guest` is its report over the numbers sent in the window; without one what only it knows is
  // null. `idle` is an equal window without a move, for its gaps.
  nlohmann::json figures(const Window& window, const std::optional<Window>& idle,
                         const std::optional<GuestReport>& guest) const;

 private:
  Gap longest_send_gap(const Window& window) const;
  Nanoseconds longest_stall(const Window& window) const;
  nlohmann::json to_vm(const Window& window, const std::optional<GuestReport>& guest) const;
  nlohmann::json from_vm(const Window& window) const;
  nlohmann::json round_trips(const Window& window) const;

  struct RoundTrip {
    UnixTime at;
    Nanoseconds took;
  };
  std::uint16_t per_second_;
  std::vector<UnixTime> sent_at_;  // by number
  Arrivals echoes_;                // by the guest's count of echoes
  Arrivals stream_;
  std::vector<RoundTrip> round_trips_;
  std::optional<std::uint64_t> counter_base_;
  std::vector<UnixTime> counter_jumps_;
  std::vector<UnixTime> resets_, mismatches_;
  std::vector<Window> stalls_;
};

}  // namespace godwit::lab

#pragma once
// How fast the lane and the peer take bytes, as input of the prediction of a pause: the mean of
// acknowledged bytes over the last two seconds' slots in which the lane was what held us up. A slot
// in which the writer had nothing more to send ("application limited", as in BBR,
// draft-cardwell-iccrg-bbr-congestion-control) is no measure of the lane, except that it can do at
// least that much: a guest that dirties little must not make the link look slow.
#include <array>
#include <cstdint>

#include "base/units.hh"

namespace godwit::stream {

class DeliveryRate final {
 public:
  static constexpr milliseconds kSlot{100};
  static constexpr std::size_t kSlots = 20;

  // Time passed since the last call; was there something that the lane did not take yet?
  void pass(Instant now, bool lane_limited);
  void acknowledged(std::uint64_t bytes) { current_.bytes += bytes; }
  // Zero until there is an estimate.
  BitRate rate() const { return {static_cast<std::uint64_t>(estimate_ * 8.0)}; }

 private:
  struct Slot {
    std::uint64_t bytes = 0;
    Nanoseconds limited{};
    Nanoseconds length{};
    bool is_measure() const { return limited * 2 >= length && length > Nanoseconds{}; }
    double rate() const { return static_cast<double>(bytes) / seconds_of(length); }
  };
  static double seconds_of(Nanoseconds time) { return std::chrono::duration<double>(time).count(); }
  void close_slot();

  std::array<Slot, kSlots> closed_{};  // a ring
  std::size_t next_ = 0;
  Slot current_;
  Instant last_{};
  bool started_ = false;
  double estimate_ = 0;  // bytes per second
};

}  // namespace godwit::stream

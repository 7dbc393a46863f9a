#include "codec/level_control.hh"

#include <algorithm>
#include <utility>

#include "base/check.hh"

namespace godwit::codec {

LevelControl::LevelControl(int level)
    : index_(static_cast<std::size_t>(std::ranges::find(kLevels, level) - kLevels.begin())) {
  CHECK(index_ < kLevels.size(), "no level {}", level);
}

bool LevelControl::pass(Instant now, bool encoder_busy, bool lane_busy) {
  if (!std::exchange(started_, true)) last_ = now;
  const Nanoseconds since = now - std::exchange(last_, now);
  if (!encoder_busy && !lane_busy) return false;  // QEMU had nothing: that says nothing
  passed_ += since;
  if (encoder_busy) encoder_busy_ += since;
  if (lane_busy) lane_busy_ += since;
  return passed_ >= interval_ && look();
}

bool LevelControl::look() {
  const auto share = [&](Nanoseconds part) {
    return static_cast<double>(part.count()) / static_cast<double>(passed_.count());
  };
  const double encoder = share(encoder_busy_);
  const double lane = share(lane_busy_);
  passed_ = encoder_busy_ = lane_busy_ = {};
  const bool lane_limits = lane >= kAlways && encoder <= 1 - kOftenIdle;
  const bool encoder_limits = encoder >= kAlways && lane <= 1 - kOftenIdle;
  if (lane_limits && index_ + 1 < kLevels.size()) return change(index_ + 1);
  if (encoder_limits && index_ > 0) return change(index_ - 1);
  return false;
}

bool LevelControl::change(std::size_t index) {
  index_ = index;
  interval_ = std::min(interval_ * 2, kLastLook);
  return true;
}

}  // namespace godwit::codec

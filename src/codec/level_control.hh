#pragma once
// Which level of compression makes memory move fastest: a better one while the lane is what
// everything waits for, a faster one while it is the encoder. As memory and link differ more than a
// model of them would tell, this tries and looks. Each change costs the compressor's window, so
// they get rarer. Pure.
#include <array>
#include <cstddef>

#include "base/units.hh"

namespace godwit::codec {

class LevelControl final {
 public:
  // Beyond 9 zstd is slower than any link that a guest converges over. Not to compress at all is
  // the operator's choice (--no-compact): it costs the link three times the bytes.
  static constexpr std::array kLevels = {1, 2, 3, 5, 9};
  // Soon: a thin link loses by what was compressed too fast until then.
  static constexpr Nanoseconds kFirstLook = milliseconds(300);
  static constexpr Nanoseconds kLastLook = seconds(8);
  // Of the time between two looks.
  static constexpr double kAlways = 0.9;
  static constexpr double kOftenIdle = 0.4;

  // `level`: of kLevels.
  explicit LevelControl(int level);

  // Since the last call: had the encoder work, had the lane something to send? True when level()
  // changed.
  bool pass(Instant now, bool encoder_busy, bool lane_busy);
  int level() const { return kLevels[index_]; }

 private:
  bool look();
  bool change(std::size_t index);

  std::size_t index_;
  Nanoseconds interval_ = kFirstLook;
  Instant last_{};
  bool started_ = false;
  Nanoseconds passed_{}, encoder_busy_{}, lane_busy_{};
};

}  // namespace godwit::codec

#pragma once
// What becomes of a byte of memory that the guest changed, once it is encoded (design 7). The first
// round does not tell: much of it is pages of zeros, and pages that the target knows, which are a
// few bytes on the lanes. So it is what the last round showed that had nothing but changes.
#include <cstdint>

namespace godwit::migrate {

class LaneShare final {
 public:
  // Bytes since the move began: of QEMU's stream as read from QEMU, and, as far as they are
  // encoded, of it and of what it became.
  struct Bytes {
    std::uint64_t offered = 0, raw = 0, coded = 0;
  };
  // Bytes on the lanes of a byte of changed memory, with a margin: rounds differ. 1 until a round
  // of changes has ended; `round` is QEMU's, the first is 1.
  double at(std::uint64_t round, const Bytes& bytes);

 private:
  double share_ = 1;
  std::uint64_t round_ = 0;
  Bytes began_;                      // as `round_` began
  std::uint64_t changes_begin_ = 0;  // in QEMU's stream: with the second round
};

}  // namespace godwit::migrate

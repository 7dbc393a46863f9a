#pragma once
// Holds a transfer back so that a guest's writes, which wait for the target, do not wait too long
// behind the rest of it: its cap shrinks by a share and grows in steps (Chiu and Jain, 1989).
#include <optional>

#include "base/units.hh"

namespace godwit::disk {

class WritePace final {
 public:
  // Zero: writes may take as long as they do.
  explicit WritePace(Nanoseconds limit) : limit_(limit) {}

  // Now and then: how long a write took since the last call, on average (zero: there was none), and
  // what the path carries by now's estimate. The transfer's cap from now on; nullopt: none. Never
  // less than a quarter of the most that the path carried: a write takes a round trip however
  // little goes beside it, and it goes by the transfer, too.
  std::optional<BitRate> look(Nanoseconds write, BitRate path);

 private:
  Nanoseconds limit_;
  BitRate cap_{};   // zero: none
  BitRate most_{};  // of the path
};

}  // namespace godwit::disk

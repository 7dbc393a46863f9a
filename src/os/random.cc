#include "os/random.hh"

#include <sys/random.h>

#include "base/check.hh"

namespace godwit::os {

void fill_random(MutableBytes out) {
  while (!out.empty()) {
    const auto got = ::getrandom(out.data(), out.size(), 0);
    CHECK(got > 0, "getrandom(2) cannot fail for small requests");
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace godwit::os

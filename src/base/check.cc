#include "base/check.hh"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "base/result.hh"

namespace godwit {

namespace base {
void check_failed(const char* file, int line, const char* condition, std::string_view detail) {
  fmt::print(stderr, "{}:{}: CHECK failed: {} {}\n", file, line, condition, detail);
  std::abort();
}
}  // namespace base

std::string errno_text(std::string_view attempt) {
  const int error = errno;
  return fmt::format("{}: {}", attempt, std::strerror(error));
}

}  // namespace godwit

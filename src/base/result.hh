#pragma once
// Expected outcomes are values: Result<T> is std::expected<T, Error>. House style 8 names the four
// kinds of errors; this is the third, and SetupError is the fourth.
#include <fmt/format.h>

#include <expected>
#include <stdexcept>
#include <string>
#include <utility>

namespace godwit {

// Text for a person: what was tried on which object, what is wrong, what to do.
struct Error {
  std::string text;
  bool operator==(const Error&) const = default;
};

template <class T = void>
using Result = std::expected<T, Error>;

// return fail("cannot open {}: {}", path, reason);
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

// Set-up failure: caught in main, per API request, per migration.
class SetupError final : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Args>
[[noreturn]] void fail_setup(fmt::format_string<Args...> format, Args&&... args) {
  throw SetupError(fmt::format(format, std::forward<Args>(args)...));
}

// "open /dev/net/tun: Permission denied", from errno at the time of the call.
std::string errno_text(std::string_view attempt);

}  // namespace godwit

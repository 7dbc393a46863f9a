#pragma once
// CHECK states what must be true of our own code; it stays on in release and aborts with the
// values.
#include <fmt/format.h>

#include <string_view>

namespace godwit::base {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               std::string_view detail);
}

#define CHECK(condition, ...)                                                                      \
  do {                                                                                             \
    if (!(condition)) [[unlikely]] {                                                               \
      ::godwit::base::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                              \
  } while (false)

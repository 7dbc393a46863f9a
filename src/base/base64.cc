#include "base/base64.hh"

#include <algorithm>
#include <cstdint>

namespace godwit {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

}  // namespace

std::string to_base64(std::string_view text) {
  std::string coded;
  coded.reserve((text.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < text.size(); at += 3) {
    const auto byte = [&](std::size_t i) -> std::uint32_t {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
    };
    const std::uint32_t bits = byte(0) << 16U | byte(1) << 8U | byte(2);
    const std::size_t count = std::min<std::size_t>(text.size() - at, 3) + 1;
    for (std::size_t i = 0; i < 4; ++i) {
      coded += i < count ? kDigits[bits >> (18 - 6 * i) & 63U] : '=';
    }
  }
  return coded;
}

Result<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return fail("this is no base64");
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string plain;
  plain.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) return fail("this is no base64");
    bits = bits << 6U | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    plain += static_cast<char>(bits >> count & 0xffU);
  }
  return plain;
}

}  // namespace godwit

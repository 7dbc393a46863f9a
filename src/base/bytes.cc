#include "base/bytes.hh"

#include "base/check.hh"

namespace godwit {

std::string to_hex(BytesView bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    hex += kDigits[value >> 4];
    hex += kDigits[value & 15];
  }
  return hex;
}

namespace {
int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}
}  // namespace

Bytes from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return {};
  Bytes bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    const int high = hex_digit(hex[i]);
    const int low = hex_digit(hex[i + 1]);
    if (high < 0 || low < 0) return {};
    bytes.push_back(static_cast<std::byte>(high * 16 + low));
  }
  return bytes;
}

Writer& Writer::text8(std::string_view text) {
  CHECK(text.size() <= 0xff, "text of {} bytes", text.size());
  return u8(static_cast<std::uint8_t>(text.size())).bytes(as_bytes(text));
}

Writer& Writer::text16(std::string_view text) {
  CHECK(text.size() <= 0xffff, "text of {} bytes", text.size());
  return u16(static_cast<std::uint16_t>(text.size())).bytes(as_bytes(text));
}

}  // namespace godwit

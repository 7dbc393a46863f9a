#pragma once
// Bytes, and a reader and a writer for wire formats. Integers are big-endian unless the name says
// otherwise (network order, RFC 1700).
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace godwit {

using Bytes = std::vector<std::byte>;
using BytesView = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;

inline BytesView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(BytesView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
inline Bytes to_bytes(BytesView view) { return {view.begin(), view.end()}; }
inline void append(Bytes& to, BytesView view) { to.insert(to.end(), view.begin(), view.end()); }

// As memcmp(3) compares; true of none.
inline bool is_all_zeros(BytesView bytes) {
  return bytes.empty() || (bytes.front() == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

std::string to_hex(BytesView bytes);
// Empty when the text is not an even number of hex digits.
Bytes from_hex(std::string_view hex);

template <std::unsigned_integral T>
constexpr T from_big_endian(const std::byte* at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>((value << (sizeof(T) > 1 ? 8 : 0)) | std::to_integer<T>(at[i]));
  }
  return value;
}
template <std::unsigned_integral T>
constexpr void to_big_endian(T value, std::byte* at) {
  for (std::size_t i = 0; i < sizeof(T); ++i) {
    at[i] = static_cast<std::byte>(value >> (8 * (sizeof(T) - 1 - i)));
  }
}

// Decodes hostile input. The first short or bad read sets the error; later reads give zeros and
// empty views, so a decoder reads all fields and asks ok() once.
class Reader final {
 public:
  explicit Reader(BytesView input) : rest_(input) {}

  template <std::unsigned_integral T>
  T integer() {
    if (rest_.size() < sizeof(T)) return fail(), T{0};
    const T value = from_big_endian<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  std::uint8_t u8() { return integer<std::uint8_t>(); }
  std::uint16_t u16() { return integer<std::uint16_t>(); }
  std::uint32_t u32() { return integer<std::uint32_t>(); }
  std::uint64_t u64() { return integer<std::uint64_t>(); }
  BytesView bytes(std::size_t count) {
    if (rest_.size() < count) return fail(), BytesView{};
    const BytesView view = rest_.first(count);
    rest_ = rest_.subspan(count);
    return view;
  }
  // A text with a one- or two-byte length before it.
  std::string_view text8() { return as_text(bytes(u8())); }
  std::string_view text16() { return as_text(bytes(u16())); }
  BytesView rest() { return bytes(rest_.size()); }
  std::size_t remaining() const { return rest_.size(); }

  void fail() { ok_ = false, rest_ = {}; }
  bool ok() const { return ok_; }
  // True when all was read and nothing failed.
  bool finished() const { return ok_ && rest_.empty(); }

 private:
  BytesView rest_;
  bool ok_ = true;
};

// Appends to a byte vector owned by the caller.
class Writer final {
 public:
  explicit Writer(Bytes& out) : out_(out) {}

  template <std::unsigned_integral T>
  Writer& integer(T value) {
    const std::size_t at = out_.size();
    out_.resize(at + sizeof(T));
    to_big_endian(value, out_.data() + at);
    return *this;
  }
  Writer& u8(std::uint8_t value) { return integer(value); }
  Writer& u16(std::uint16_t value) { return integer(value); }
  Writer& u32(std::uint32_t value) { return integer(value); }
  Writer& u64(std::uint64_t value) { return integer(value); }
  Writer& bytes(BytesView view) { return append(out_, view), *this; }
  Writer& text8(std::string_view text);   // at most 255 bytes, CHECKed
  Writer& text16(std::string_view text);  // at most 65,535 bytes, CHECKed

 private:
  Bytes& out_;
};

}  // namespace godwit

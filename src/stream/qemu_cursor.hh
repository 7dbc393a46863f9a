#pragma once
// Reads one item that may not have arrived in full; for the parser's source files only. Unlike
// Reader, too few bytes are no error: needed() says how many the item takes at least.
#include "stream/qemu_parser.hh"

namespace godwit::stream {

class QemuParser::Cursor final {
 public:
  explicit Cursor(BytesView input) : input_(input) {}

  template <std::unsigned_integral T>
  T integer() {
    const BytesView view = bytes(sizeof(T));
    return view.empty() ? T{0} : from_big_endian<T>(view.data());
  }
  BytesView bytes(std::size_t count) {
    if (is_short()) return {};
    if (input_.size() - position_ < count) {
      needed_ = position_ + count;
      return {};
    }
    const BytesView view = input_.subspan(position_, count);
    position_ += count;
    return view;
  }
  std::string_view text8() { return as_text(bytes(integer<std::uint8_t>())); }

  BytesView consumed() const { return input_.first(position_); }
  std::size_t position() const { return position_; }
  bool is_short() const { return needed_ > 0; }
  std::size_t needed() const { return needed_; }
  void give_up() { gave_up_ = true; }
  bool gave_up() const { return gave_up_; }

 private:
  BytesView input_;
  std::size_t position_ = 0;
  std::size_t needed_ = 0;
  bool gave_up_ = false;
};

}  // namespace godwit::stream

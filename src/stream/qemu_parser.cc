#include "stream/qemu_parser.hh"

#include <algorithm>

#include "base/check.hh"
#include "stream/qemu_cursor.hh"

namespace godwit::stream {

using namespace qemu_format;  // a file of constants for this parser alone

void QemuParser::push(BytesView chunk) {
  stats_.bytes += chunk.size();
  while (!chunk.empty()) {
    if (state_ == State::kOpaque) return pass(chunk);
    if (skip_ > 0) {
      skip(chunk);
    } else if (held_.empty()) {
      const std::size_t used = try_item(chunk);
      if (used == 0 && state_ != State::kOpaque) return append(held_, chunk);
      chunk = chunk.subspan(used);
    } else {
      const std::size_t count = std::min(needed_ - held_.size(), chunk.size());
      append(held_, chunk.first(count));
      chunk = chunk.subspan(count);
      if (held_.size() < needed_) return;
      const std::size_t used = try_item(held_);
      if (state_ == State::kOpaque && used == 0) pass(held_);
      CHECK(used == 0 || used == held_.size(), "{} of {} held bytes used", used, held_.size());
      if (used > 0 || state_ == State::kOpaque) held_.clear();
    }
  }
}

void QemuParser::finish() {
  if (!held_.empty()) pass(held_);
  held_.clear();
  mark(QemuMark::Kind::kEnd);
  state_ = State::kOpaque;
}

// Bytes used by the item at the front of `bytes`; 0 when it is cut short (needed_ says how much
// more) or not understood (the state is kOpaque then).
std::size_t QemuParser::try_item(BytesView bytes) {
  Cursor cursor(bytes);
  item(cursor);
  needed_ = cursor.needed();
  if (cursor.is_short() || cursor.gave_up()) return 0;
  return cursor.position();
}

void QemuParser::item(Cursor& cursor) {
  switch (state_) {
    case State::kHeader:
      return header(cursor);
    case State::kSections:
      return section(cursor);
    case State::kRam:
      return ram_record(cursor);
    case State::kRamBlocks:
      return ram_blocks(cursor);
    case State::kRamFooter:
      return ram_footer(cursor);
    case State::kOpaque:
      break;
  }
}

void QemuParser::header(Cursor& cursor) {
  const auto magic = cursor.integer<std::uint32_t>();
  const auto version = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  if (magic != kMagic || version != kVersion) return give_up(cursor);
  pass_item(cursor, State::kSections);
}

void QemuParser::section(Cursor& cursor) {
  const auto type = cursor.integer<std::uint8_t>();
  if (cursor.is_short()) return;
  switch (type) {
    case kConfiguration:
      return configuration(cursor);
    case kSubsection:
      return subsection(cursor);
    case kSectionStart:
    case kSectionFull:
      return section_start(cursor, type);
    case kSectionPart:
    case kSectionEnd:
      return section_more(cursor, type);
    case kCommand:
      return command(cursor);
    default:
      return give_up(cursor);  // among them kEndOfState: nothing to parse comes after it
  }
}

void QemuParser::configuration(Cursor& cursor) {
  const auto length = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  if (has_ram_ || length > kMaxConfigurationName) return give_up(cursor);
  cursor.bytes(length);
  if (cursor.is_short()) return;
  pass_item(cursor, State::kSections);
  after_configuration_ = true;
}

void QemuParser::subsection(Cursor& cursor) {
  if (!after_configuration_) return give_up(cursor);
  const std::string_view name = cursor.text8();
  cursor.integer<std::uint32_t>();  // version
  if (cursor.is_short()) return;
  if (name == "configuration/target-page-bits") {
    const auto bits = cursor.integer<std::uint32_t>();
    if (cursor.is_short()) return;
    if (bits < kMinPageBits || bits > kMaxPageBits) return give_up(cursor);
    page_size_ = std::size_t{1} << bits;
  } else if (name == "configuration/uuid") {
    cursor.bytes(16);
    if (cursor.is_short()) return;
  } else {
    return give_up(cursor);
  }
  pass_item(cursor, State::kSections);
}

void QemuParser::section_start(Cursor& cursor, std::uint8_t type) {
  const auto id = cursor.integer<std::uint32_t>();
  const std::string_view name = cursor.text8();
  cursor.integer<std::uint32_t>();  // instance
  const auto version = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  if (type != kSectionStart || name != "ram" || version != kRamVersion || has_ram_) {
    if (type == kSectionFull && has_ram_) mark(QemuMark::Kind::kFirstDevice);
    return give_up(cursor);
  }
  has_ram_ = true;
  ram_id_ = id;
  ram_section_ = type;
  pass_item(cursor, State::kRam);
}

void QemuParser::section_more(Cursor& cursor, std::uint8_t type) {
  const auto id = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  if (!has_ram_ || id != ram_id_) return give_up(cursor);
  ram_section_ = type;
  if (type == kSectionEnd) mark(QemuMark::Kind::kFinalRamBegan);
  pass_item(cursor, State::kRam);
}

void QemuParser::command(Cursor& cursor) {
  const auto number = cursor.integer<std::uint16_t>();
  const auto length = cursor.integer<std::uint16_t>();
  if (cursor.is_short()) return;
  if (number != kCommandPackaged) {
    pass_item(cursor, State::kSections);
    skip_ = length;
    return;
  }
  if (length != sizeof(std::uint32_t)) return give_up(cursor);
  const auto size = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  mark(QemuMark::Kind::kFirstDevice);
  pass_item(cursor, State::kSections);
  skip_ = size;
  in_package_ = size > 0;
  in_post_copy_ = true;
}

void QemuParser::skip(BytesView& chunk) {
  const std::size_t count = std::min<std::uint64_t>(skip_, chunk.size());
  pass(chunk.first(count));
  chunk = chunk.subspan(count);
  skip_ -= count;
  if (skip_ == 0 && std::exchange(in_package_, false)) mark(QemuMark::Kind::kPackageEnded);
}

void QemuParser::pass(BytesView bytes) {
  stats_.opaque_bytes += bytes.size();
  passed_ += bytes.size();
  sink_.opaque(bytes);
}

void QemuParser::pass_item(Cursor& cursor, State next) {
  pass(cursor.consumed());
  after_configuration_ = after_configuration_ && next == State::kSections;
  state_ = next;
}

void QemuParser::give_up(Cursor& cursor) {
  mark(QemuMark::Kind::kOpaque);
  state_ = State::kOpaque;
  cursor.give_up();
}

void QemuParser::mark(QemuMark::Kind kind) { sink_.mark({kind, passed_}); }

std::string_view to_text(QemuMark::Kind kind) {
  switch (kind) {
    case QemuMark::Kind::kRamBegan:
      return "ram began";
    case QemuMark::Kind::kRoundEnded:
      return "round ended";
    case QemuMark::Kind::kFinalRamBegan:
      return "final ram began";
    case QemuMark::Kind::kFinalRamEnded:
      return "final ram ended";
    case QemuMark::Kind::kFirstDevice:
      return "first device";
    case QemuMark::Kind::kPackageEnded:
      return "package ended";
    case QemuMark::Kind::kOpaque:
      return "opaque";
    case QemuMark::Kind::kEnd:
      return "end";
  }
  return "?";
}

}  // namespace godwit::stream

// QemuParser, the part that knows the data of section "ram"; and its inverse.
#include <algorithm>
#include <bit>

#include "base/check.hh"
#include "stream/qemu_cursor.hh"

namespace godwit::stream {

using namespace qemu_format;

void QemuParser::ram_record(Cursor& cursor) {
  const auto word = cursor.integer<std::uint64_t>();
  if (cursor.is_short()) return;
  const std::uint64_t flags = word & (page_size_ - 1);
  const std::uint64_t offset = word - flags;
  switch (flags) {
    case 0:  // of the last block in the list, if it is in huge pages
      if (!may_be_page_size_ || !std::has_single_bit(word)) return give_up(cursor);
      may_be_page_size_ = false;
      return pass_item(cursor, State::kRam);
    case kRamMemorySize:
      if (ram_section_ != kSectionStart || !blocks_.empty() || offset == 0) return give_up(cursor);
      stats_.ram_bytes = unlisted_ = offset;
      return pass_item(cursor, State::kRamBlocks);
    case kRamEndOfSection:
      if (offset != 0) return give_up(cursor);
      return pass_item(cursor, State::kRamFooter);
    case kRamPage:
    case kRamPage | kRamContinue:
    case kRamZero:
    case kRamZero | kRamContinue:
      return ram_page(cursor, word);
    default:
      return give_up(cursor);
  }
}

void QemuParser::ram_blocks(Cursor& cursor) {
  const auto name_length = cursor.integer<std::uint8_t>();
  if (cursor.is_short()) return;
  if (name_length == 0) {  // no name: the high byte of the page size of the block before
    cursor.bytes(sizeof(std::uint64_t) - 1);
    if (cursor.is_short()) return;
    if (!std::exchange(may_be_page_size_, false)) return give_up(cursor);
    return pass_item(cursor, State::kRamBlocks);
  }
  const std::string_view name = as_text(cursor.bytes(name_length));
  const auto length = cursor.integer<std::uint64_t>();
  if (cursor.is_short()) return;
  if (length > unlisted_ || blocks_.size() == kMaxBlocks) return give_up(cursor);
  blocks_.push_back({std::string(name), length});
  unlisted_ -= length;
  may_be_page_size_ = true;
  pass_item(cursor, unlisted_ > 0 ? State::kRamBlocks : State::kRam);
  if (unlisted_ == 0) mark(QemuMark::Kind::kRamBegan);
}

void QemuParser::ram_page(Cursor& cursor, std::uint64_t word) {
  PageRecord record;
  record.continues = (word & kRamContinue) != 0;
  record.kind = (word & kRamPage) != 0 ? PageRecord::Kind::kPage : PageRecord::Kind::kZero;
  record.offset = word & ~std::uint64_t{page_size_ - 1};
  const std::string_view name = record.continues ? std::string_view{} : cursor.text8();
  if (cursor.is_short()) return;
  std::size_t block = last_block_;
  if (!record.continues) {
    const auto found = std::ranges::find(blocks_, name, &Block::name);
    block = static_cast<std::size_t>(found - blocks_.begin());
  }
  if (block >= blocks_.size() || record.offset >= blocks_[block].length) return give_up(cursor);
  const bool is_page = record.kind == PageRecord::Kind::kPage;
  record.contents = cursor.bytes(is_page ? page_size_ : 1);
  if (cursor.is_short()) return;

  record.block = static_cast<std::uint16_t>(block);
  record.name = blocks_[block].name;
  may_be_page_size_ = false;
  last_block_ = block;
  note_scan(block, record.offset);
  ++(is_page ? stats_.pages : stats_.zero_pages);
  passed_ += cursor.position();
  sink_.page(record);
}

// QEMU scans its dirty bitmap block by block, upwards; going back means a new round.
void QemuParser::note_scan(std::size_t block, std::uint64_t offset) {
  if (in_post_copy_ || ram_section_ != kSectionPart) return;
  const ScanPosition here{block, offset};
  if (scan_ && here <= *scan_) {
    ++stats_.rounds;
    mark(QemuMark::Kind::kRoundEnded);
  }
  scan_ = here;
}

void QemuParser::ram_footer(Cursor& cursor) {
  const auto type = cursor.integer<std::uint8_t>();
  const auto id = cursor.integer<std::uint32_t>();
  if (cursor.is_short()) return;
  if (type != kFooter || id != ram_id_) return give_up(cursor);
  pass_item(cursor, State::kSections);
  if (ram_section_ == kSectionEnd) mark(QemuMark::Kind::kFinalRamEnded);
}

void reproduce_head(const PageRecord& record, Bytes& out) {
  std::uint64_t word = record.offset;
  word |= record.kind == PageRecord::Kind::kPage ? kRamPage : kRamZero;
  if (record.continues) word |= kRamContinue;
  Writer writer(out);
  writer.u64(word);
  if (!record.continues) writer.text8(record.name);
}

void reproduce(const PageRecord& record, Bytes& out) {
  reproduce_head(record, out);
  append(out, record.contents);
}

}  // namespace godwit::stream

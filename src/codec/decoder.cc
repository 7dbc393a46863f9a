#include "codec/decoder.hh"

#include <algorithm>

#include "base/check.hh"
#include "codec/delta.hh"
#include "stream/qemu_format.hh"
#include "stream/qemu_parser.hh"

namespace godwit::codec {

using stream::PageRecord;

// A record's word, its block's name and a fill byte.
constexpr std::size_t kMostOfRecord = sizeof(std::uint64_t) + 1 + UINT8_MAX + 1;

Decoder::Decoder(const Settings& settings, Known known, std::shared_ptr<GroupReader> group)
    : settings_(settings), known_(std::move(known)), group_(std::move(group)) {}

Result<bool> Decoder::step() {
  const BytesView rest = BytesView(held_).subspan(decoded_);
  if (rest.size() < BatchHeader::kSize) return false;
  const auto header = parse_header(rest.first(BatchHeader::kSize));
  if (!header) return std::unexpected(header.error());
  const BytesView body = rest.subspan(BatchHeader::kSize);
  if (body.size() < header->coded) return false;
  if (auto done = batch(*header, body.first(header->coded)); !done) {
    return std::unexpected(done.error());
  }
  decoded_ += BatchHeader::kSize + header->coded;
  return true;
}

void Decoder::push(BytesView coded) {
  held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(decoded_));
  decoded_ = 0;
  append(held_, coded);
}

Result<> Decoder::batch(const BatchHeader& header, BytesView coded) {
  if (verified_) return fail("encoded memory: a batch after the last");
  if (header.kind != BatchKind::kPlain) {
    if (auto done = compare(coded); !done) return done;
    ready_ = out_.size();
    (header.kind == BatchKind::kLast ? verified_ : checkpointed_) = true;
    return {};
  }
  if (out_.size() > ready_) return fail("encoded memory: a checkpoint is missing");
  if (header.page_bits > 0) {
    const std::size_t size = std::size_t{1} << header.page_bits;
    if (store_ && size != page_size_) return fail("encoded memory: the size of pages changed");
    if (!store_) store_.emplace(settings_.cache, page_size_ = size);
  }
  const auto plain = this->plain(header, coded);
  if (!plain) return std::unexpected(plain.error());
  batch_began_ = out_.size();
  if (!operations(Reader(plain->first(header.operations)),
                  Reader(plain->subspan(header.operations))) ||
      !bring_known()) {
    if (!lacking_.empty()) return fail("encoded memory: {}", lacking_);
    return fail("encoded memory: operations that make no sense, after {} bytes", out_.size());
  }
  hash_.update(BytesView(out_).subspan(batch_began_));
  if (!checkpointed_) ready_ = out_.size();
  return {};
}

Result<BytesView> Decoder::plain(const BatchHeader& header, BytesView coded) {
  if (header.method != Method::kZstd) return coded;
  if (header.window >= settings_.windows) {
    return fail("encoded memory: there is no window {}", header.window);
  }
  auto& window = windows_.at(header.window);
  if (!window) window.emplace(settings_.window_bits);
  plain_.resize(header.plain);
  if (!window->decompress(coded, plain_)) {
    return fail("encoded memory: a batch of {} bytes cannot be decompressed", coded.size());
  }
  return plain_;
}

Bytes Decoder::take(Bytes spare) {
  const BytesView kept = BytesView(out_).subspan(ready_);
  spare.assign(kept.begin(), kept.end());
  out_.resize(std::exchange(ready_, 0));
  return std::exchange(out_, std::move(spare));
}

Result<> Decoder::compare(BytesView digest) {
  if (std::ranges::equal(digest, hash_.digest())) return {};
  return fail(
      "checksum mismatch in the guest's memory: what was decoded is not what QEMU wrote; "
      "check the memory of both hosts");
}

bool Decoder::operations(Reader operations, Reader literals) {
  while (operations.ok() && operations.remaining() > 0) {
    const std::uint8_t tag = operations.u8();
    if (tag == std::to_underlying(Encoding::kOpaque)) {
      const std::uint64_t count = varint(operations);
      if (!operations.ok() || count > literals.remaining() || !room_for(count)) return false;
      append(out_, literals.bytes(count));
    } else if (!pages(tag, operations, literals)) {
      return false;
    }
  }
  return operations.finished() && literals.finished();
}

bool Decoder::pages(std::uint8_t tag, Reader& operations, Reader& literals) {
  const auto encoding = Encoding{static_cast<std::uint8_t>(tag & kEncodingMask)};
  const bool known = std::to_underlying(encoding) < kEncodings && encoding != Encoding::kOpaque &&
                     (tag & ~(kEncodingMask | kNamed | kMoved | kOffered)) == 0;
  const bool offered = (tag & kOffered) != 0;
  const bool literal = encoding == Encoding::kLiteral || encoding == Encoding::kKept;
  if (!known || !store_ || (offered && (!literal || !group_))) return false;
  PageRecord record{
      .kind = encoding == Encoding::kZero ? PageRecord::Kind::kZero : PageRecord::Kind::kPage,
      .continues = (tag & kNamed) == 0,
      .block = 0,
      .name = {},
      .offset = 0,
      .contents = {}};
  if (!record.continues) {
    record.name = operations.text8();
    last_block_ = block_of(record.name);
    if (last_block_ >= stream::qemu_format::kMaxBlocks) return false;
  }
  if ((tag & kMoved) != 0) next_number_ = varint(operations);
  const std::uint64_t count = varint(operations);
  if (!operations.ok() || next_number_ > kMaxPageNumber - kMaxRaw) return false;
  static constexpr std::byte kFill{0};
  for (std::uint64_t i = 0; i < count; ++i) {
    const bool zero = encoding == Encoding::kZero;
    if (!room_for(kMostOfRecord + (zero ? 0 : page_size_))) return false;
    record.offset = next_number_ * page_size_;
    if (encoding == Encoding::kKnown) {
      reproduce_head(record, out_);
      expect_known(operations);
    } else {
      record.contents =
          zero ? BytesView(&kFill, 1)
               : contents(encoding, page_key(last_block_, next_number_), operations, literals);
      if (record.contents.empty() || (offered && !group_->add(record.contents))) return false;
      reproduce(record, out_);
    }
    record.continues = true;
    ++next_number_;
  }
  return true;
}

// Of the next page; empty: there is none.
BytesView Decoder::contents(Encoding encoding, PageKey key, Reader& operations, Reader& literals) {
  const auto kept = [&](Slot slot) {
    if (!store_->holds(slot)) return BytesView{};
    store_->touch(slot);
    return store_->at(slot);
  };
  switch (encoding) {
    case Encoding::kLiteral:
      return literals.bytes(page_size_);
    case Encoding::kKept: {
      const BytesView page = literals.bytes(page_size_);
      if (page.empty() || store_->slots() == 0) return {};
      return store_->at(store_->put(key, page));
    }
    case Encoding::kSame:
      return kept(store_->find(key));
    case Encoding::kDelta: {
      const BytesView page = kept(store_->find(key));
      if (page.empty()) return {};
      return apply_delta(store_->change(store_->find(key)), operations, literals) ? page
                                                                                  : BytesView{};
    }
    case Encoding::kCopy: {
      const std::uint64_t slot = varint(operations);
      return slot < store_->slots() ? kept(static_cast<Slot>(slot)) : BytesView{};
    }
    case Encoding::kGroup:
      return shared(operations);
    case Encoding::kKnown:
    case Encoding::kOpaque:
    case Encoding::kZero:
      break;
  }
  return {};
}

void Decoder::expect_known(Reader& operations) {
  const std::uint64_t place = next_known_ + unzigzag(varint(operations));
  next_known_ = place + 1;
  known_.expect(place);
  expected_.push_back({.at = out_.size(), .place = place});
  out_.resize(out_.size() + page_size_);
}

bool Decoder::bring_known() {
  for (const Expected& each : expected_) {
    const auto page = known_.page(each.place);
    if (!page) return lacking_ = page.error().text, false;
    if (page->size() != page_size_) return false;
    std::ranges::copy(*page, out_.begin() + static_cast<std::ptrdiff_t>(each.at));
  }
  expected_.clear();
  return true;
}

BytesView Decoder::shared(Reader& operations) {
  const auto member = varint(operations);
  const std::uint64_t number = next_shared_ + unzigzag(varint(operations));
  if (!operations.ok() || !group_ || member > UINT32_MAX) return {};
  next_shared_ = number + 1;
  const BytesView page =
      group_->page({.member = static_cast<std::uint32_t>(member), .number = number});
  if (page.empty()) lacking_ = "a page of another vm of the group is missing";
  return page.size() == page_size_ ? page : BytesView{};
}

std::size_t Decoder::block_of(std::string_view name) {
  const auto found = std::ranges::find(blocks_, name);
  const auto index = static_cast<std::size_t>(found - blocks_.begin());
  if (found == blocks_.end() && index < stream::qemu_format::kMaxBlocks) blocks_.emplace_back(name);
  return index;
}

}  // namespace godwit::codec

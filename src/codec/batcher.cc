#include "codec/batcher.hh"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.hh"
#include "codec/delta.hh"

namespace godwit::codec {
namespace {

// A delta with more changed words is no smaller than what zstd makes of the page.
constexpr std::size_t kBucket = 4;            // entries of by_content_ that a hash may be in
constexpr std::size_t kMostChangedShare = 2;  // of the page's words, one in so many

// What is sent for the first time may never be sent again: so many bytes of it are kept, for pages
// with the same contents. Filling 64 MiB saved no byte more, and took a third of the time to encode
// where new memory is dear, and half of that to decode (measured 2026-12).
constexpr std::size_t kMostKeptAtFirst = std::size_t{16} << 20;

// sent_before_ knows pages by a hash, so that it stays small whatever a stream says: 1 MiB, a bit
// for each page of 32 GiB. Two pages with one bit are kept too early, which is all.
constexpr int kSentBits = 23;
constexpr std::uint64_t kGoldenRatio = 0x9e3779b97f4a7c15;  // Fibonacci hashing (Knuth, TAOCP 6.4)

std::size_t raw_size(const stream::PageRecord& record) {
  return sizeof(std::uint64_t) + (record.continues ? 0 : 1 + record.name.size()) +
         record.contents.size();
}

}  // namespace

Batcher::Batcher(const Settings& settings, GroupOffers group)
    : settings_(settings), group_(std::move(group)) {
  if (group_.index) group_name_.emplace(group_.index->key());
}

void Batcher::push(BytesView raw) { parser_.push(raw); }

void Batcher::flush() {
  if (batch_raw_ > 0) close_batch();
}

void Batcher::finish() {
  parser_.finish();
  flush();
  append_digest(BatchKind::kLast);
}

void Batcher::mark(const stream::QemuMark& mark) {
  marks_.push_back(mark);
  if (mark.kind != stream::QemuMark::Kind::kPackageEnded || checkpoints_) return;
  flush();
  append_digest(BatchKind::kCheckpoint);
  checkpoints_ = true;
}

void Batcher::append_digest(BatchKind kind) {
  batches_.push_back({.kind = kind,
                      .page_bits = 0,
                      .operations = 0,
                      .bytes = to_bytes(hash_.digest()),
                      .raw_end = stats_.raw,
                      .memory_end = memory_});
}

void Batcher::opaque(BytesView bytes) {
  hash_.update(bytes);
  while (!bytes.empty()) {
    const BytesView part = bytes.first(std::min(bytes.size(), kBatchBytes));
    if (run_.pages == 0 || run_.choice.encoding != Encoding::kOpaque) {
      close_run();
      run_.choice = {Encoding::kOpaque};
    }
    run_.pages += part.size();
    append(literals_, part);
    batch_raw_ += part.size();
    memory_ += part.size();
    batch_weight_ += part.size();
    charge(Encoding::kOpaque);
    count(Encoding::kOpaque, part.size());
    bytes = bytes.subspan(part.size());
    if (batch_weight_ >= kBatchBytes) close_batch();
  }
}

void Batcher::page(const stream::PageRecord& record) {
  const std::size_t size = parser_.page_size();
  const std::uint64_t number = record.offset / size;
  const bool zero = record.kind == stream::PageRecord::Kind::kZero;
  if (!fits_an_operation(record)) {
    Bytes bytes;
    reproduce(record, bytes);
    return opaque(bytes);
  }
  if (!zero && !store_) {
    store_.emplace(settings_.cache, size);
    sent_before_.resize(std::size_t{1} << kSentBits);
    by_content_.assign(std::bit_ceil(std::max(2 * store_->slots(), kBucket)), kNoSlot);
  }
  head_.clear();
  reproduce_head(record, head_);
  hash_.update(head_);
  hash_.update(record.contents);
  const PageKey key = page_key(record.block, number);
  arguments_.clear();
  const Choice choice = zero ? Choice{Encoding::kZero} : choose(key, record.contents);
  charge(choice.encoding);  // its literals
  open_run(choice, record, number);
  append(run_.arguments, arguments_);
  ++run_.pages;
  last_block_ = record.block;
  next_number_ = number + 1;
  batch_raw_ += raw_size(record);
  memory_ += raw_size(record) + (zero ? size : 0);
  batch_weight_ += zero ? kZeroPageWeight : raw_size(record);
  charge(choice.encoding);
  count(choice.encoding, raw_size(record));
  if (batch_weight_ >= kBatchBytes) close_batch();
}

// The cheapest that will do; its arguments and literals are written.
Batcher::Choice Batcher::choose(PageKey key, BytesView contents) {
  const std::uint64_t hash = stream::checksum(0, contents);
  const Slot slot = store_->slots() == 0 ? kNoSlot : store_->find(key);
  if (slot != kNoSlot && std::ranges::equal(store_->at(slot), contents)) {
    store_->touch(slot);
    return {Encoding::kSame};
  }
  if (const Slot other = copy_of(contents, hash); other != kNoSlot) {
    append_varint(arguments_, other);
    store_->touch(other);
    return {Encoding::kCopy};
  }
  const bool again = sent(key) || slot != kNoSlot;
  sent(key) = true;
  if (const auto place = known(contents, slot)) {
    append_varint(arguments_, zigzag(*place - next_known_));
    next_known_ = *place + 1;
    return {Encoding::kKnown};
  }
  const GroupIndex::Found found = shared(contents, slot, !again);
  if (found.page) {
    append_varint(arguments_, found.page->member);
    append_varint(arguments_, zigzag(found.page->number - next_shared_));
    next_shared_ = found.page->number + 1;
    return {Encoding::kGroup};
  }
  if (slot != kNoSlot &&
      append_delta(store_->at(slot), contents, contents.size() / kDeltaWord / kMostChangedShare,
                   arguments_, literals_)) {
    keep(key, contents, hash);
    return {Encoding::kDelta};
  }
  append(literals_, contents);
  // Some of the first; then those that were sent before, as they will be again.
  if (store_->slots() == 0 || (!again && !keeps_first())) {
    return {Encoding::kLiteral, found.offered};
  }
  keep(key, contents, hash);
  return {Encoding::kKept, found.offered};
}

// What no QEMU writes passes as opaque bytes. After it a record may go on in a block that the
// decoder has not heard of.
bool Batcher::fits_an_operation(const stream::PageRecord& record) const {
  if (record.offset / parser_.page_size() > kMaxPageNumber - kMaxRaw) return false;
  if (record.continues && record.block != last_block_) return false;
  return record.kind == stream::PageRecord::Kind::kPage || record.contents.front() == std::byte{0};
}

// Whether a page that was not sent before is worth its place.
bool Batcher::keeps_first() const {
  return !store_->full() && store_->used() * store_->page_size() < kMostKeptAtFirst;
}

// Whether it was sent before.
std::vector<bool>::reference Batcher::sent(PageKey key) {
  return sent_before_[(key * kGoldenRatio) >> (64 - kSentBits)];
}

// Its place in the catalogue. A page that is kept has changed since, to what no host knew.
std::optional<std::uint64_t> Batcher::known(BytesView contents, Slot slot) {
  return slot == kNoSlot ? catalogue_.find(contents) : std::nullopt;
}

// What other vms of the group sent. A page is offered when it is first sent, and likely to be as it
// was when they were made from one image; what changes is one vm's own.
GroupIndex::Found Batcher::shared(BytesView contents, Slot slot, bool is_first) {
  if (!group_.index || slot != kNoSlot) return {};
  return group_.index->find((*group_name_)(contents), group_.member, is_first);
}

std::span<Slot> Batcher::bucket(std::uint64_t hash) {
  const std::uint64_t index = hash & (by_content_.size() / kBucket - 1);
  return std::span(by_content_).subspan(index * kBucket, kBucket);
}

Slot Batcher::copy_of(BytesView contents, std::uint64_t hash) {
  for (const Slot slot : bucket(hash)) {
    if (slot != kNoSlot && hashes_[slot] == hash &&
        std::ranges::equal(store_->at(slot), contents)) {
      return slot;
    }
  }
  return kNoSlot;
}

// An entry whose slot holds something else by now is free; if there is none the oldest goes.
void Batcher::keep(PageKey key, BytesView contents, std::uint64_t hash) {
  const Slot slot = store_->put(key, contents);
  if (slot == hashes_.size()) hashes_.push_back(hash);
  hashes_[slot] = hash;
  const std::span<Slot> entries = bucket(hash);
  const auto here = [&](Slot entry) {
    return entry == kNoSlot || bucket(hashes_[entry]).data() != entries.data();
  };
  const auto free = std::ranges::find_if(entries, here);
  std::shift_right(entries.begin(), free == entries.end() ? free : free + 1, 1);
  entries.front() = slot;
}

void Batcher::open_run(const Choice& choice, const stream::PageRecord& record,
                       std::uint64_t number) {
  const bool follows = record.continues && number == next_number_;
  if (run_.pages > 0 && run_.choice == choice && follows) return;
  close_run();
  run_.choice = choice;
  const bool moved = record.block != last_block_ || number != next_number_;
  operations_.push_back(
      static_cast<std::byte>(std::to_underlying(choice.encoding) | (record.continues ? 0 : kNamed) |
                             (moved ? kMoved : 0) | (choice.offered ? kOffered : 0)));
  if (!record.continues) Writer(operations_).text8(record.name);
  if (moved) append_varint(operations_, number);
}

void Batcher::close_run() {
  if (run_.pages == 0) return;
  if (run_.choice.encoding == Encoding::kOpaque) {
    operations_.push_back(static_cast<std::byte>(Encoding::kOpaque));
  }
  append_varint(operations_, std::exchange(run_.pages, 0));
  append(operations_, run_.arguments);
  run_.arguments.clear();
  charge(run_.choice.encoding);
}

void Batcher::close_batch() {
  close_run();
  PlainBatch batch{.kind = BatchKind::kPlain,
                   .page_bits = static_cast<std::uint8_t>(std::countr_zero(parser_.page_size())),
                   .operations = static_cast<std::uint32_t>(operations_.size()),
                   .bytes = {},
                   .raw_end = stats_.raw += batch_raw_,
                   .memory_end = memory_};
  append(operations_, literals_);
  stats_.plain += operations_.size();
  Bytes spare;
  if (!spare_.empty()) {
    spare = std::move(spare_.back());
    spare_.pop_back();
  }
  spare.clear();
  batch.bytes = std::exchange(operations_, std::move(spare));
  batches_.push_back(std::move(batch));
  if (checkpoints_) append_digest(BatchKind::kCheckpoint);
  literals_.clear();
  batch_raw_ = batch_weight_ = 0;
  charged_ = 0;
}

void Batcher::count(Encoding encoding, std::uint64_t raw) {
  EncodingStats& stats = stats_.by_encoding[std::to_underlying(encoding)];
  ++stats.pages;
  stats.raw += raw;
}

// What was added since the last call is this encoding's.
void Batcher::charge(Encoding encoding) {
  const std::size_t now = plain();
  stats_.by_encoding[std::to_underlying(encoding)].plain += now - std::exchange(charged_, now);
}

}  // namespace godwit::codec

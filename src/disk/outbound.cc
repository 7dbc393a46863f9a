#include "disk/outbound.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::disk {

std::string_view to_text(Mode mode) {
  switch (mode) {
    case Mode::async_then_sync:
      return "async-then-sync";
    case Mode::sync:
      return "sync";
    case Mode::async:
      return "async";
  }
  return "?";
}

Result<Mode> parse_mode(std::string_view text) {
  for (const Mode mode : {Mode::async_then_sync, Mode::sync, Mode::async}) {
    if (text == to_text(mode)) return mode;
  }
  return fail("\"{}\" is no mode for disks: async-then-sync, sync or async", text);
}

Outbound::Outbound(const std::vector<ByteCount>& disks, Mode mode, OutboundSink& sink)
    : mode_(mode),
      sink_(sink),
      wanted_synchronous_(mode == Mode::sync),
      synchronous_(wanted_synchronous_) {
  CHECK(disks.size() <= kMaxDisksOnTheWay);
  for (const ByteCount size : disks) maps_.emplace_back(size);
}

// ---- what the target has already ----

void Outbound::compare(BytesView key) {
  CHECK(seeds_.empty() && sent_ == 0 && reads_.empty());
  digest_.emplace(key);
  for (const DirtyMap& map : maps_) seeds_.emplace_back(map.size());
}

bool Outbound::learn(const ToldPart& part) {
  if (const auto* names = std::get_if<CataloguePart>(&part)) {
    return !seeds_.empty() && catalogue_.learn(*names);
  }
  if (const auto* key = std::get_if<KeyPart>(&part)) return learn_key(*key);
  return learn_seed(std::get<SeedPart>(part));
}

bool Outbound::learn_key(const KeyPart& part) {
  const bool is_first = catalogue_.empty() && std::ranges::all_of(seeds_, [](const Seed& seed) {
                          return seed.known_to() == 0;
                        });
  if (seeds_.empty() || !is_first) return false;
  digest_.emplace(part.key);
  return true;
}

bool Outbound::learn_seed(const SeedPart& part) {
  if (part.disk >= seeds_.size() || !seeds_[part.disk].learn(part)) return false;
  const std::uint64_t end = seeds_[part.disk].known_to();
  if (!part.digests.empty()) mark(part.disk, {.offset = part.offset, .length = end - part.offset});
  return true;
}

bool Outbound::wants_digests() const {
  std::size_t kept = 0;
  for (const Seed& seed : seeds_) kept += seed.digests_kept();
  return kept < kMostDigestsKept;
}

bool Outbound::all_known() const {
  return copies_.empty() && std::ranges::all_of(seeds_, &Seed::is_known);
}

// ---- the guest's writes ----

void Outbound::written(WriteToken token, std::uint64_t offset, BytesView data, Instant now) {
  const Extent extent{.offset = offset, .length = data.size()};
  if (!synchronous_) {
    mark(token.disk, extent);
    return sink_.answer(token);
  }
  mark_what_is_read(token.disk, extent);
  send_in_step({.kind = RecordKind::kWrite, .disk = token.disk, .extent = extent, .data = data},
               token, now);
}

void Outbound::zeroed(WriteToken token, Extent extent, Instant now) {
  if (!synchronous_) {
    mark(token.disk, extent);
    return sink_.answer(token);
  }
  mark_what_is_read(token.disk, extent);
  // NBD's are up to 4 GiB long. The last of several answers for all.
  while (extent.length > kMaxRecordLength) {
    send({.kind = RecordKind::kZero,
          .disk = token.disk,
          .extent = {.offset = extent.offset, .length = kMaxRecordLength}});
    extent.offset += kMaxRecordLength;
    extent.length -= kMaxRecordLength;
  }
  send_in_step({.kind = RecordKind::kZero, .disk = token.disk, .extent = extent}, token, now);
}

void Outbound::discarded(WriteToken token, Extent extent) {
  mark(token.disk, extent);
  sink_.answer(token);
}

void Outbound::flushed(WriteToken token, Instant now) {
  if (!synchronous_) return sink_.answer(token);
  send_in_step({.kind = RecordKind::kFlush}, token, now);
}

// What is being read may be of before: it is read again.
void Outbound::mark_what_is_read(std::uint8_t disk, Extent extent) {
  for (const Read& read : reads_) {
    if (read.disk != disk || !overlaps(read.extent, extent)) continue;
    const std::uint64_t from = std::max(read.extent.offset, extent.offset);
    mark(disk, {.offset = from, .length = std::min(read.extent.end(), extent.end()) - from});
  }
}

bool Outbound::is_read(std::uint8_t disk, Extent extent) const {
  return std::ranges::any_of(
      reads_, [&](const Read& read) { return read.disk == disk && overlaps(read.extent, extent); });
}

// Two reads of one block could be done in either order.
std::optional<Extent> Outbound::next_to_read(std::uint8_t disk) {
  const std::uint64_t end = seeds_.empty() ? maps_[disk].size().bytes : seeds_[disk].known_to();
  const auto extent = maps_[disk].take(kReadBytes, end);
  if (!extent || !is_read(disk, *extent)) return extent;
  mark(disk, *extent);
  return std::nullopt;
}

void Outbound::send(const Record& record) {
  if (!seeds_.empty()) seeds_[record.disk].change(record.extent);
  sink_.send(record);
  ++sent_;
  const bool is_copy = record.kind == RecordKind::kCopy;
  unacked_.push_back(
      {.bytes = kRecordHeader + (is_copy ? record.extent.length : record.data.size()),
       .token = {},
       .extent = {}});
  unacked_bytes_ += unacked_.back().bytes;
}

void Outbound::flush_ahead() {
  if (end_sent_ || sent_ == flushed_) return;
  send({.kind = RecordKind::kFlush});
  flushed_ = sent_;
}

void Outbound::send_in_step(const Record& record, WriteToken token, Instant now) {
  send(record);
  Sent& last = unacked_.back();
  last.ahead = mode_ != Mode::sync && ahead_bytes_ + last.bytes <= kMostAhead;
  if (last.ahead) {
    ahead_bytes_ += last.bytes;
    return sink_.answer(token);
  }
  last.token = token;
  last.waits = true;
  last.extent = record.extent;
  last.at = now;
}

// ---- what the target lacks ----

void Outbound::read_done(std::uint8_t disk, Extent extent, BytesView data) {
  const auto found = std::ranges::find_if(
      reads_, [&](const Read& read) { return read.disk == disk && read.extent == extent; });
  CHECK(found != reads_.end() && data.size() == extent.length, "a read of disk {} at {}", disk,
        extent.offset);
  reads_.erase(found);
  reading_bytes_ -= extent.length;
  send_as_it_is(disk, extent, data);
}

// What was written since is marked: it could not be older at the target than what is there already.
Outbound::Going Outbound::look_at(std::uint8_t disk, std::uint64_t offset, BytesView block) {
  if (maps_[disk].is_dirty(offset)) return {};
  const Going as_it_is{.kind = is_all_zeros(block) ? RecordKind::kZero : RecordKind::kWrite};
  const Digest* theirs = seeds_.empty() ? nullptr : seeds_[disk].digest_at(offset);
  const bool may_be_elsewhere =
      as_it_is.kind == RecordKind::kWrite && !catalogue_.empty() && !hurries_;
  if (theirs == nullptr && !may_be_elsewhere) return as_it_is;
  const Digest digest = (*digest_)(block);
  if (theirs != nullptr && digest == *theirs) {
    seeds_[disk].forget(offset);
    same_bytes_ += block.size();
    return {};
  }
  if (!may_be_elsewhere || !catalogue_.has(digest)) return as_it_is;
  return {.kind = RecordKind::kCopy, .digest = digest};
}

void Outbound::send_blocks(std::uint8_t disk, Extent extent, const Going& going, BytesView data) {
  const bool is_copy = going.kind == RecordKind::kCopy;
  if (is_copy) {
    copies_.push_back({.number = sent_, .disk = disk, .extent = extent, .digest = going.digest});
    data = going.digest;
  } else if (going.kind == RecordKind::kZero) {
    data = {};
  }
  send({.kind = *going.kind, .disk = disk, .extent = extent, .data = data});
}

// Runs of blocks with something in them, and of zeroes; copies one by one.
void Outbound::send_as_it_is(std::uint8_t disk, Extent extent, BytesView data) {
  const auto size_at = [&](std::uint64_t at) {
    return std::min<std::uint64_t>(kBlockBytes, data.size() - at);
  };
  const auto going_at = [&](std::uint64_t at) {
    return look_at(disk, extent.offset + at, data.subspan(at, size_at(at)));
  };
  std::uint64_t at = 0;
  Going next = going_at(0);
  while (at < data.size()) {
    const Going going = next;
    std::uint64_t end = at + size_at(at);
    while (end < data.size() && (next = going_at(end)).kind == going.kind &&
           going.kind != RecordKind::kCopy) {
      end += size_at(end);
    }
    if (going.kind) {
      send_blocks(disk, {.offset = extent.offset + at, .length = end - at}, going,
                  data.subspan(at, end - at));
    }
    at = end;
  }
}

void Outbound::pump(std::uint64_t room, Instant now) {
  if (is_late(now)) fall_back();
  if (end_sent_) return;
  if (wanted_synchronous_ && acked_ >= in_step_after_) synchronous_ = true;
  if (copies_.size() >= (synchronous_ ? kMostCopiesInStep : kMostCopies)) return;
  std::size_t without = 0;  // disks in turn that had nothing
  while (reading_bytes_ < room && reads_.size() < kMaxReads && without < maps_.size()) {
    const auto disk = static_cast<std::uint8_t>(next_disk_++ % maps_.size());
    const auto extent = next_to_read(disk);
    without = extent ? 0 : without + 1;
    if (!extent) continue;
    reads_.push_back({.disk = disk, .extent = *extent});
    reading_bytes_ += extent->length;
    sink_.read(disk, *extent);
  }
  if (finishing_ && dirty_bytes() == 0 && reads_.empty() && all_known()) {
    send({.kind = RecordKind::kEnd});
    end_sent_ = true;
  }
}

// ---- acknowledgements ----

bool Outbound::acknowledged(std::uint64_t records) {
  if (records > sent_) return false;
  while (acked_ < records) {
    const Sent sent = unacked_.front();
    unacked_.pop_front();
    unacked_bytes_ -= sent.bytes;
    if (sent.ahead) ahead_bytes_ -= sent.bytes;
    if (!copies_.empty() && copies_.front().number == acked_) {
      catalogue_.was_there();
      elsewhere_bytes_ += copies_.front().extent.length;
      copies_.pop_front();
    }
    ++acked_;
    if (sent.waits) sink_.answer(sent.token);
  }
  return true;
}

// It is read as it is by then, with all that the guest wrote to it behind the copy.
bool Outbound::not_there(std::uint64_t number) {
  const auto copy = std::ranges::find(copies_, number, &Copy::number);
  if (copy == copies_.end()) return false;
  mark(copy->disk, copy->extent);
  catalogue_.was_not_there(copy->digest);
  copies_.erase(copy);
  return true;
}

bool Outbound::is_late(Instant now) const {
  const auto waits = std::ranges::find(unacked_, true, &Sent::waits);
  return waits != unacked_.end() && now - waits->at >= kPatience;
}

// They are on their way, and in order: nothing has to be sent again.
void Outbound::fall_back() {
  synchronous_ = false;
  in_step_after_ = sent_;
  answer_all();
}

void Outbound::answer_all() {
  for (Sent& sent : unacked_) {
    if (std::exchange(sent.waits, false)) sink_.answer(sent.token);
  }
}

void Outbound::be_asynchronous() {
  wanted_synchronous_ = synchronous_ = false;
  answer_all();
}

// From here on a copy that is passed over would be a round trip of the pause.
void Outbound::release_writes() {
  be_asynchronous();
  hurries_ = true;
}

void Outbound::keep_in_step() {
  if (mode_ == Mode::async || wanted_synchronous_ || finishing_) return;
  wanted_synchronous_ = synchronous_ = true;
}

// What QEMU still says, as it lets go of the tap, is answered at once.
void Outbound::finish() {
  be_asynchronous();
  finishing_ = true;
}

std::uint64_t Outbound::dirty_bytes() const {
  std::uint64_t sum = 0;
  for (const DirtyMap& map : maps_) sum += map.dirty_bytes();
  return sum;
}

}  // namespace godwit::disk

#include "disk/inbound.hh"

#include <algorithm>
#include <utility>

#include "base/check.hh"

namespace godwit::disk {
namespace {

bool is_flush(RecordKind kind) { return kind == RecordKind::kFlush || kind == RecordKind::kEnd; }

Digest digest_in(BytesView data) {
  Digest digest;
  std::ranges::copy(data, digest.begin());
  return digest;
}

}  // namespace

Inbound::Inbound(std::vector<ByteCount> disks, InboundSink& sink)
    : reader_(std::move(disks)), sink_(sink) {}

Result<> Inbound::push(BytesView bytes) {
  reader_.push(bytes);
  while (true) {
    const auto record = reader_.next();
    if (!record) return std::unexpected(record.error());
    if (!*record) break;
    work_.push_back({.kind = (*record)->kind,
                     .disk = (*record)->disk,
                     .extent = (*record)->extent,
                     .data = Bytes((*record)->data.begin(), (*record)->data.end())});
    waiting_bytes_ += work_.back().data.size();
  }
  begin();
  return {};
}

// A flush begins when all before it is done; what comes behind it may begin meanwhile.
bool Inbound::may_begin(std::size_t index) const {
  const Work& work = work_[index];
  return std::all_of(work_.begin(), work_.begin() + static_cast<std::ptrdiff_t>(index),
                     [&](const Work& before) {
                       if (before.done || is_flush(before.kind)) return true;
                       if (is_flush(work.kind)) return false;
                       return before.disk != work.disk || !overlaps(before.extent, work.extent);
                     });
}

void Inbound::begin() {
  const std::size_t most = std::min(work_.size(), kMostAhead);
  for (std::size_t i = 0; i < most && at_once_ < kMaxAtOnce; ++i) {
    if (work_[i].begun) continue;
    if (!may_begin(i)) break;
    work_[i].begun = true;
    ++at_once_;
    start(made_ + i, work_[i]);
  }
}

void Inbound::start(std::uint64_t number, const Work& work) {
  switch (work.kind) {
    case RecordKind::kWrite:
      return sink_.write(number, work.disk, work.extent.offset, work.data);
    case RecordKind::kZero:
      return sink_.zero(number, work.disk, work.extent);
    case RecordKind::kCopy:
      return sink_.copy(number, work.disk, work.extent, digest_in(work.data));
    case RecordKind::kFlush:
    case RecordKind::kEnd:
      return sink_.flush(number);
  }
}

void Inbound::done(std::uint64_t number) {
  CHECK(number >= made_ && number - made_ < work_.size(), "record {} of {}", number, made_);
  Work& work = work_[number - made_];
  CHECK(work.begun && !work.done);
  work.done = true;
  --at_once_;
  while (!work_.empty() && work_.front().done) {
    waiting_bytes_ -= work_.front().data.size();
    ended_ = ended_ || work_.front().kind == RecordKind::kEnd;
    work_.pop_front();
    ++made_;
  }
  begin();
}

}  // namespace godwit::disk

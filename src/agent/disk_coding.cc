#include "agent/disk_coding.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::agent {
namespace {

// What zstd makes of bytes that it cannot compress, with room to spare.
constexpr std::size_t kMaxCoded = kMaxBatch + (kMaxBatch >> 7) + 1024;

}  // namespace

DiskPacker::DiskPacker(os::Loop& control, std::function<void()> changed)
    : control_(control), changed_(std::move(changed)) {}

void DiskPacker::push(Bytes records) {
  CHECK(records.size() <= kMaxBatch);
  ++in_worker_;
  plain_waiting_ += records.size();
  worker_.post(
      [this, alive = std::weak_ptr(alive_), records = std::move(records), level = level_.level()] {
        Bytes coded(kBatchHeader);
        compressor_.compress(records, level, coded);
        to_big_endian(static_cast<std::uint32_t>(records.size()), coded.data());
        to_big_endian(static_cast<std::uint32_t>(coded.size() - kBatchHeader), coded.data() + 4);
        control_.post([this, alive, plain = records.size(), coded = std::move(coded)]() mutable {
          if (!alive.expired()) came(plain, std::move(coded));
        });
      });
}

void DiskPacker::came(std::size_t plain, Bytes coded) {
  --in_worker_;
  plain_waiting_ -= plain;
  coded_waiting_ += coded.size();
  coded_bytes_ += coded.size();
  coded_.push_back(std::move(coded));
  changed_();
}

BytesView DiskPacker::coded() const {
  return coded_.empty() ? BytesView{} : BytesView(coded_.front()).subspan(taken_);
}

void DiskPacker::took(std::size_t count) {
  coded_waiting_ -= count;
  taken_ += count;
  if (coded_.empty() || taken_ < coded_.front().size()) return;
  coded_.pop_front();
  taken_ = 0;
}

void DiskPacker::adapt(bool lane_busy) { level_.pass(control_.now(), in_worker_ > 0, lane_busy); }

DiskUnpacker::DiskUnpacker(os::Loop& control, Came came)
    : control_(control), came_(std::move(came)) {}

std::size_t DiskUnpacker::take(BytesView coded) {
  std::size_t taken = 0;
  while (taken < coded.size() && in_worker_ < kMostBatches) {
    if (broken_) return coded.size();
    std::size_t whole = kBatchHeader;
    if (batch_.size() >= kBatchHeader) whole += from_big_endian<std::uint32_t>(batch_.data() + 4);
    const std::size_t part = std::min(whole - batch_.size(), coded.size() - taken);
    append(batch_, coded.subspan(taken, part));
    taken += part;
    if (batch_.size() < kBatchHeader) continue;
    const std::size_t coded_size = from_big_endian<std::uint32_t>(batch_.data() + 4);
    if (coded_size > kMaxCoded || from_big_endian<std::uint32_t>(batch_.data()) > kMaxBatch) {
      broken_ = true;
      control_.post([this, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) came_(fail("a batch of disks' records is too long"));
      });
      return coded.size();
    }
    if (batch_.size() == kBatchHeader + coded_size) unpack();
  }
  return taken;
}

void DiskUnpacker::unpack() {
  ++in_worker_;
  worker_.post([this, alive = std::weak_ptr(alive_), batch = std::exchange(batch_, {})] {
    Bytes plain(from_big_endian<std::uint32_t>(batch.data()));
    const bool good = decompressor_.decompress(BytesView(batch).subspan(kBatchHeader), plain);
    control_.post([this, alive, good, plain = std::move(plain)]() mutable {
      if (alive.expired()) return;
      --in_worker_;
      if (good) return came_(std::move(plain));
      broken_ = true;
      came_(fail("a batch of disks' records is damaged"));
    });
  });
}

}  // namespace godwit::agent

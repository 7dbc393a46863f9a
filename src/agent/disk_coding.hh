#pragma once
// Records of disks on their way: batches, compressed one after the other in a thread of its own.
//
//   u32 plain bytes | u32 coded bytes | coded: zstd, one frame over all batches of the stream
//
// Owned by a DiskSource or DiskTarget; control thread.
#include <deque>
#include <functional>
#include <memory>

#include "agent/worker.hh"
#include "base/result.hh"
#include "codec/level_control.hh"
#include "codec/zstd.hh"

namespace godwit::agent {

inline constexpr int kDiskWindowBits = 24;  // 16 MiB at each end
inline constexpr std::size_t kBatchHeader = 8;
inline constexpr std::size_t kMaxBatch = 4 << 20;  // plain bytes

class DiskPacker final {
 public:
  // `changed`: there is something coded, or less is waiting.
  DiskPacker(os::Loop& control, std::function<void()> changed);

  void push(Bytes records);
  BytesView coded() const;
  void took(std::size_t count);
  bool idle() const { return in_worker_ == 0 && coded_.empty(); }
  // Plain bytes in the worker, and coded ones that were not taken.
  std::uint64_t waiting() const { return plain_waiting_ + coded_waiting_; }
  std::uint64_t coded_bytes() const { return coded_bytes_; }  // so far
  // Call often: the level follows what limits, compression or the lane.
  void adapt(bool lane_busy);

 private:
  void came(std::size_t plain, Bytes coded);

  os::Loop& control_;
  std::function<void()> changed_;
  codec::Compressor compressor_{kDiskWindowBits};  // the worker's
  codec::LevelControl level_{3};
  std::deque<Bytes> coded_;
  std::size_t taken_ = 0;  // of the first
  std::size_t in_worker_ = 0;
  std::uint64_t plain_waiting_ = 0, coded_waiting_ = 0, coded_bytes_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

class DiskUnpacker final {
 public:
  using Came = std::function<void(Result<Bytes>)>;  // records, in order; after an error no more
  DiskUnpacker(os::Loop& control, Came came);

  // Bytes taken; fewer than given while kMostBatches are under way: then `came` follows.
  std::size_t take(BytesView coded);

 private:
  static constexpr std::size_t kMostBatches = 4;
  void unpack();

  os::Loop& control_;
  Came came_;
  codec::Decompressor decompressor_{kDiskWindowBits};  // the worker's
  Bytes batch_;                                        // as far as it came, with its header
  std::size_t in_worker_ = 0;
  bool broken_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

}  // namespace godwit::agent

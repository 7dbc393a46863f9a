#pragma once
// Sealed datagrams on their way to a socket, laid out for one system call per run: consecutive
// datagrams of equal size (only the last may be shorter) are what UDP_SEGMENT cuts.
//
//   block   | dg 1452 | dg 1452 | dg 1452 | dg 300 || dg 1452 | dg 1452 | ...
//           `---------- run 0 --------------------'`---- run 1 ---
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.hh"

namespace godwit::wire {

// Limits of one UDP_SEGMENT send: UDP_MAX_SEGMENTS of Linux before 6.9, and the largest IPv4/UDP
// payload (65,535 - 20 - 8).
inline constexpr std::size_t kMaxRunSegments = 64;
inline constexpr std::size_t kMaxRunBytes = 65'507;

struct DatagramRun {
  MutableBytes bytes;
  std::uint16_t segment_size = 0;  // bytes; of each datagram but perhaps the last

  std::size_t datagrams() const { return (bytes.size() + segment_size - 1) / segment_size; }
};

// Reused: clear() keeps the blocks, so a batch allocates only until it has met its largest load.
// What it holds is bounded by what its owner puts in between two clear()s.
class DatagramBatch final {
 public:
  // Room for one more datagram, to be filled entirely before anything else is added.
  // 0 < size <= kMaxRunBytes, CHECKed.
  MutableBytes add(std::size_t size);

  std::span<const DatagramRun> runs() const { return runs_; }
  std::size_t datagrams() const { return datagrams_; }
  std::size_t bytes() const { return bytes_; }
  bool empty() const { return datagrams_ == 0; }
  void clear();

 private:
  static constexpr std::size_t kBlockBytes = 128 * 1024;
  using Block = std::array<std::byte, kBlockBytes>;

  bool fits_last_run(std::size_t size) const;

  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<DatagramRun> runs_;
  std::size_t block_ = 0;       // the one being filled
  std::size_t block_used_ = 0;  // bytes of it
  std::size_t datagrams_ = 0;
  std::size_t bytes_ = 0;
};

}  // namespace godwit::wire

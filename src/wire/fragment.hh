#pragma once
// Frames of which some fragments have arrived, and the bounded memory they lie in.
//
// A frame of `count` fragments has consecutive counters, so the counter of its first names it. All
// its fragments have the same size, so the first to arrive tells where every other one belongs.
#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/units.hh"
#include "wire/datagram.hh"

namespace godwit::wire {

// The largest frame and its padding.
inline constexpr std::size_t kReassemblyBytes = kMaxFrameBytes + kMaxFragments;
using FrameBuffer = std::array<std::byte, kReassemblyBytes>;

// The reassembly memory of all wires of one thread: made at need, kept, never more than the limit.
class FramePool final {
 public:
  // 64 x 64 KiB: at 1 % loss and 10 Gbit/s, frames with holes of the last 8 ms.
  static constexpr std::size_t kDefaultBuffers = 64;

  explicit FramePool(std::size_t max_buffers = kDefaultBuffers) : max_buffers_(max_buffers) {
    free_.reserve(max_buffers);
  }

  // Null when all are in use. The bytes are those of the last user.
  std::unique_ptr<FrameBuffer> take();
  void give_back(std::unique_ptr<FrameBuffer> buffer);
  // So many that are in use are another pool's from now on, or were: then there may be more than
  // the limit for a while.
  void lend(std::size_t buffers) { made_ -= buffers; }
  void borrow(std::size_t buffers) { made_ += buffers; }
  std::size_t in_use() const { return made_ - free_.size(); }
  // Room for one frame that is being put together for delivery.
  MutableBytes scratch() { return *scratch_; }

 private:
  std::size_t max_buffers_;
  std::size_t made_ = 0;
  std::vector<std::unique_ptr<FrameBuffer>> free_;
  std::unique_ptr<FrameBuffer> scratch_ = std::make_unique_for_overwrite<FrameBuffer>();
};

// A set of fragments of one frame, as bits.
using FragmentSet = std::uint64_t;
static_assert(kMaxFragments == 64);

// Those that hold the bytes [from, to) of a frame cut into pieces of `chunk`; from < to.
constexpr FragmentSet fragments_of(std::size_t from, std::size_t to, std::size_t chunk) {
  const std::size_t first = from / chunk;
  const std::size_t last = (to - 1) / chunk;
  if (last >= kMaxFragments) return ~FragmentSet{0};
  return (~FragmentSet{0} >> (63 - last)) & (~FragmentSet{0} << first);
}

struct PartialFrame {
  std::uint64_t first_counter = 0;
  std::uint8_t count = 0;
  std::size_t chunk = 0;  // bytes of each fragment
  FragmentSet received = 0;
  // Received when pieces were last delivered; 0 while none were.
  FragmentSet salvaged = 0;
  bool is_salvaging = false;  // whole segments are delivered as soon as they are there
  Instant last_arrival{};
  std::unique_ptr<FrameBuffer> buffer;

  FragmentSet all() const { return fragments_of(0, count * chunk, chunk); }
  bool is_complete() const { return received == all(); }
  std::uint64_t end_counter() const { return first_counter + count; }
  MutableBytes place(std::size_t index) {
    return MutableBytes(*buffer).subspan(index * chunk, chunk);
  }
  BytesView bytes() const { return BytesView(*buffer).first(count * chunk); }
};

// The frame without its padding, which the last byte counts (itself included). Empty: nonsense.
BytesView without_padding(BytesView fragments, std::size_t chunk);

}  // namespace godwit::wire

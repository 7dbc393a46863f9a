#pragma once
// What is left of a super-frame that lost datagrams: its whole segments, as frames of their own.
//
// A TCP super-frame of 64 KiB travels in some 46 datagrams; dropping it all for one lost datagram
// turned 1 % loss into a 200-fold collapse of throughput (prototype, 2026). Instead every run of
// neighbouring segments whose bytes are all there is delivered as one smaller super-frame:
//
//   segments   | 0 | 1 | 2 | 3 | 4 | 5 | 6 |      datagram 2 was lost
//   datagrams  | 0  | 1  | x  | 3  | 4  | 5 |
//   pieces     [ 0   1 ]           [ 4   5   6 ]   cut at multiples of the MSS: SACK wastes nothing
//
// Each piece is what segmentation offload would have made of these segments (Linux
// tcp_gso_segment(), inet_gso_segment()): own IP length, id and header checksum; sequence number;
// PSH and FIN only on the piece with the end, CWR only on that with the beginning; the sum of the
// pseudo-header in the checksum field (the "seed") adjusted to the new length. UDP super-frames
// (USO) are cut the same way, each segment being a datagram of its own.
#include <cstdint>

#include "base/bytes.hh"
#include "wire/fragment.hh"
#include "wire/vnet.hh"

namespace godwit::wire {

// The segments [first, first + count) of a super-frame.
struct SegmentRun {
  std::size_t first = 0;
  std::size_t count = 0;
};

class Salvage final {
 public:
  // A view of a frame with holes, of which `received` arrived; it must outlive this. Not valid()
  // when the headers are missing or it is no super-frame.
  Salvage(BytesView fragments, std::size_t chunk, FragmentSet received);

  bool valid() const { return segments_ > 0; }
  std::size_t segments() const { return segments_; }
  // The next run at or after segment `from` that is complete now, and has no segment that already
  // was complete with `before` only. Its count is 0 when there is none.
  SegmentRun next_run(std::size_t from, FragmentSet before) const;
  // Writes the run as a frame (vnet header, Ethernet, ...) into `out`, which has room for the
  // largest frame; returns the part it filled.
  MutableBytes write(SegmentRun run, MutableBytes out) const;

 private:
  bool is_whole(std::size_t segment, FragmentSet received) const;
  std::size_t payload_offset(std::size_t segment) const;  // from the start of fragments_
  void fix_ip(MutableBytes ethernet, SegmentRun run, std::size_t payload) const;
  void fix_tcp(MutableBytes tcp, SegmentRun run) const;

  BytesView fragments_;
  std::size_t chunk_;
  FragmentSet received_;
  VnetHeader vnet_;
  SuperFrameLayout layout_;
  std::size_t payload_ = 0;  // bytes of it in the whole super-frame
  std::size_t segments_ = 0;
};

}  // namespace godwit::wire

#pragma once
// The receiving half of a lane: datagrams in, frames and messages out.
//
//   header ok? -> counter fresh? -> tag good? -> counter recorded -> bundle: each frame --.
//                                                                 -> message -------------+-> sink
//                                                                 -> fragment: reassembly '
//   Nothing is kept, and no state changes, before the tag was found good.
//
// Frames are delivered in the order of completion. A super-frame with a hole waits for stragglers
// until kReorderDatagrams have overtaken its end or it was quiet for kSalvageDelay; then its whole
// segments are delivered (wire/salvage.hh) and further ones as their datagrams arrive, until it was
// quiet for kGiveUpDelay or its memory is needed.
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/units.hh"
#include "crypto/replay.hh"
#include "wire/datagram.hh"
#include "wire/fragment.hh"
#include "wire/types.hh"

namespace godwit::wire {

// Reordering on one path rarely exceeds a few datagrams; a super-frame has some 46.
inline constexpr std::uint64_t kReorderDatagrams = 16;
// For a super-frame that nothing follows.
inline constexpr Nanoseconds kSalvageDelay = milliseconds(5);
inline constexpr Nanoseconds kGiveUpDelay = milliseconds(100);
// A counter overtaken so long ago counts as lost (settled_below).
inline constexpr Nanoseconds kReorderHorizon = milliseconds(50);
// Per receiver index; the oldest is salvaged and dropped to make room.
inline constexpr std::size_t kMaxPartialFrames = 16;

// Must not call back into the Opener that calls it. Views end with the call.
class OpenerSink {
 public:
  virtual ~OpenerSink() = default;
  // A frame that a TAP will take (check_vnet): vnet header, then Ethernet.
  virtual void frame(BytesView vnet_and_ethernet) = 0;
  virtual void message(std::uint8_t kind, BytesView body, std::uint64_t counter) = 0;
};

struct OpenerCounters {
  std::uint64_t datagrams = 0;    // authentic and fresh
  std::uint64_t frames = 0;       // delivered, salvaged pieces included
  std::uint64_t frame_bytes = 0;  // of them, Ethernet without the vnet header
  std::uint64_t messages = 0;
  // Dropped datagrams, by cause.
  std::uint64_t malformed = 0;
  std::uint64_t misdirected = 0;  // another receiver index or epoch
  std::uint64_t replayed = 0;     // a copy, or too old to tell
  std::uint64_t bad_tag = 0;
  std::uint64_t no_buffer = 0;  // fragments: reassembly memory of the thread was in use
  // Frames.
  std::uint64_t bad_vnet = 0;    // dropped: the kernel would refuse it
  std::uint64_t salvaged = 0;    // super-frames of which pieces were delivered
  std::uint64_t pieces = 0;      // those pieces
  std::uint64_t incomplete = 0;  // given up with something missing (salvaged ones included)

  void add_to(Drops& drops) const;
};

// One key, one thread; owned by the wire engine. Never allocates after construction (but see
// FramePool).
class Opener final {
 public:
  // `pool` outlives this.
  Opener(const LaneKey& key, FramePool& pool);
  ~Opener();
  Opener(const Opener&) = delete;
  Opener& operator=(const Opener&) = delete;

  // From one pool to another, with what lies in it: in between nothing may be called.
  void leave_pool();
  void enter_pool(FramePool& pool);

  // Decrypts in place and delivers what became complete. True: authentic and fresh, whatever its
  // content was good for. False: dropped and counted; nothing else changed.
  bool open(MutableBytes datagram, Instant now, OpenerSink& sink);

  // Salvages and gives up what is due. Needed no earlier than next_tick(), which is empty while no
  // frame is incomplete.
  void tick(Instant now, OpenerSink& sink);
  std::optional<Instant> next_tick() const;
  // Salvages everything now and forgets the rest: nothing more of this lane is waited for.
  void drain(OpenerSink& sink);

  // True when every counter below was received; all that they carried is then delivered.
  bool received_all_below(std::uint64_t counter) const { return window_.has_all_below(counter); }
  // True when every counter below was received, or was overtaken at least kReorderHorizon ago.
  bool settled_below(std::uint64_t counter, Instant now) const;
  // The next instant at which that may be, though nothing arrives.
  Instant settles_at(Instant now) const;
  // One above the highest counter received; 0 before the first.
  std::uint64_t end_counter() const { return window_.end(); }

  std::uint32_t receiver_index() const { return receiver_index_; }
  Epoch epoch() const { return epoch_; }
  std::size_t partial_frames() const { return partial_.size(); }
  const OpenerCounters& counters() const { return counters_; }

 private:
  bool open_fragment(const DatagramHeader& header, MutableBytes datagram, Instant now,
                     OpenerSink& sink);
  bool decrypt(MutableBytes datagram, MutableBytes out);
  void record(std::uint64_t counter, Instant now);

  void deliver_bundle(BytesView body, OpenerSink& sink);
  void deliver_message(BytesView body, std::uint64_t counter, OpenerSink& sink);
  void deliver_frame(BytesView frame, OpenerSink& sink);

  PartialFrame* find(std::uint64_t first_counter);
  PartialFrame* start(const DatagramHeader& header, std::size_t chunk, OpenerSink& sink);
  void arrived(PartialFrame& frame, std::size_t index, Instant now, OpenerSink& sink);
  void salvage(PartialFrame& frame, OpenerSink& sink);
  void salvage_overtaken(OpenerSink& sink);
  void give_up(PartialFrame& frame, OpenerSink& sink);
  void release(PartialFrame& frame);
  void find_next_overtaken();

  std::unique_ptr<crypto::Aead> aead_;
  std::uint32_t receiver_index_;
  Epoch epoch_;
  FramePool* pool_;
  crypto::ReplayWindow window_;
  std::vector<PartialFrame> partial_;  // in no order; at most kMaxPartialFrames
  // When window_.end() gets here, a partial frame has been overtaken.
  std::uint64_t next_overtaken_ = UINT64_MAX;
  // settled_below(): what had been seen at mark_time_, and one horizon earlier.
  std::uint64_t settled_ = 0;
  std::uint64_t mark_ = 0;
  Instant mark_time_{};
  Instant last_arrival_{};
  OpenerCounters counters_;
};

}  // namespace godwit::wire

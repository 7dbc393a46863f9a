#pragma once
// Puts the frames towards one port in order, over all moves of both ends.
//
// Frames come labelled (types.hh, Label), from several channels at once. Those of the current
// segment pass; those of a later one wait; the current one ends by its End, which also names the
// next:
//
//   (e, f) ── flush(f+1) ──▶ (e, f+1)                       the producer learned where we are now
//   (e, f) ── eof(e+1) ──▶ (e+1, what Move(e+1) says)       the producer moved
//
// A frame of a segment that is over (it overtook nothing: it was late) passes at once; that is out
// of order, as on any network, but not lost. Closed (the port is held or paused) nothing passes and
// everything is kept.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "wire/control.hh"
#include "wire/held_buffer.hh"
#include "wire/limits.hh"

namespace godwit::wire {

// Part of one Port.
class Intake final {
 public:
  using Deliver = std::function<void(BytesView)>;

  struct Counters {
    std::uint64_t held = 0;     // frames that had to wait
    std::uint64_t dropped = 0;  // of them, did not fit
    std::uint64_t late = 0;     // passed out of order
    std::uint64_t forced = 0;   // segments given up waiting for
  };

  explicit Intake(const Limits& limits) : limits_(limits) {}

  // Delivery begins with this segment. Anything kept for earlier ones goes first.
  void start(Label at);
  bool started() const { return started_; }
  Label current() const { return current_; }

  // True: the caller delivers `frame` itself, now. False: it was kept, or dropped.
  bool frame(Label label, BytesView frame, Instant now);
  // All of the segment has arrived.
  void ended(Label label, const End& end);
  // The producer's first segment at an epoch (Move).
  void begins(Epoch producer, Epoch first);

  // Whether frames pass; on opening, hands over what has waited for it.
  void open(bool open, Instant now, const Deliver& deliver);
  // After ended() and begins(): hands over what need not wait any more.
  void advance(Instant now, const Deliver& deliver);
  // Since when frames wait for the end of the current segment; nothing if none do.
  std::optional<Instant> blocked_since() const { return blocked_since_; }
  // Gives up on the current segment.
  void force(Instant now, const Deliver& deliver);

  // Forgets what was kept, and what is known of the producer.
  void clear();
  std::size_t held_frames() const;
  std::size_t held_bytes() const { return held_bytes_; }
  const Counters& counters() const { return counters_; }

  // For the hand-over to the next host.
  struct Kept {
    HeldBuffer frames;
    std::optional<End> end;
  };
  const std::map<Label, Kept>& segments() const { return segments_; }
  std::vector<Label> known_begins() const;

 private:
  void release_current(const Deliver& deliver);
  bool step();
  void go_to(Label next);
  void note_blocked(Instant now);

  const Limits& limits_;
  bool started_ = false;
  bool open_ = false;
  Label current_;
  std::map<Label, Kept> segments_;
  std::map<Epoch, Epoch> begins_;
  std::size_t held_bytes_ = 0;
  std::optional<Instant> blocked_since_;
  Counters counters_;
};

}  // namespace godwit::wire

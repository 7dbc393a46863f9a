#pragma once
// The disks of one vm on their way out: what to read of them, what to send, and when the guest's
// writes are answered. After DRBD's activity log and CloudNet's disk phase (Wood et al., VEE 2011):
//
//   guest writes --tap--> marked, answered --> read --> record            asynchronous
//                   '---------------------------------> record, answered        in step, a little
//                                                       '--> answered by its ack   in step, more
//
// The guest's own disk has every write before the tap tells of it, so what is marked can be read at
// any time, and what is written while it is read is read again. Asynchronously a
// write costs the guest nothing, whatever the link does; in step, or synchronously, it goes at
// once, and what differs is bounded by what is in flight. Of that kMostAhead is answered already;
// with Mode::sync nothing: each write is at the target when the guest learns that it is done. An
// acknowledgement that somebody waits for in vain for kPatience makes it asynchronous again.
//
// Pure: no I/O; owned by one thread. After each call the owner calls pump().
#include <deque>
#include <vector>

#include "disk/catalogue.hh"
#include "disk/dirty_map.hh"
#include "disk/record.hh"
#include "disk/seed.hh"

namespace godwit::disk {

enum class Mode : std::uint8_t { async_then_sync, sync, async };
std::string_view to_text(Mode mode);
Result<Mode> parse_mode(std::string_view text);

// A write of the guest that waits for its answer.
struct WriteToken {
  std::uint8_t disk = 0;
  std::uint64_t request = 0;
  bool operator==(const WriteToken&) const = default;
};

class OutboundSink {
 public:
  virtual ~OutboundSink() = default;
  // Read these bytes of the disk, then read_done(). At most kMaxReads at a time.
  virtual void read(std::uint8_t disk, Extent extent) = 0;
  // The next record for the target. Its data is the sink's only during the call.
  virtual void send(const Record& record) = 0;
  virtual void answer(WriteToken token) = 0;
};

class Outbound final {
 public:
  static constexpr std::size_t kMaxReads = 8;
  static constexpr std::uint64_t kReadBytes = 256 << 10;
  static constexpr Nanoseconds kPatience = seconds(2);
  // On their way at a time: 64 MiB, 6 Gbit/s at a round trip of 80 ms; and an eighth while the
  // guest's writes wait behind them.
  static constexpr std::size_t kMostCopies = 1024, kMostCopiesInStep = 128;
  // Of the guest's writes in step, as records: so much is on its way without anybody waiting for
  // it. 2 ms of a pause at 465 Mbit/s, and more than a database commits in a round trip.
  static constexpr std::uint64_t kMostAhead = 128 << 10;

  Outbound(const std::vector<ByteCount>& disks, Mode mode, OutboundSink& sink);

  // The target has disks already, and tells of them in learn(), with digests of this key, unless it
  // tells another: nothing is read before it is known what is there. To be called first.
  void compare(BytesView key);
  // False: not in order. wants_digests(): not too many at a time.
  bool learn(const ToldPart& part);
  bool wants_digests() const;
  // Bytes that did not go, as they were found there: where they are to be, or elsewhere.
  std::uint64_t same_bytes() const { return same_bytes_; }
  std::uint64_t elsewhere_bytes() const { return elsewhere_bytes_; }

  // The target lacks this; before it is told otherwise it has all.
  void mark(std::uint8_t disk, Extent extent) { maps_[disk].mark(extent); }

  // From the tap: the guest has done this. The token is answered now or later.
  void written(WriteToken token, std::uint64_t offset, BytesView data, Instant now);
  void zeroed(WriteToken token, Extent extent, Instant now);
  // What is there now has to be read: not every discard is done.
  void discarded(WriteToken token, Extent extent);
  void flushed(WriteToken token, Instant now);

  void read_done(std::uint8_t disk, Extent extent, BytesView data);
  // So many of the records sent are made at the target; false: more than were sent.
  bool acknowledged(std::uint64_t records);
  // One that is about to be acknowledged was passed over: what it names is not there any more, and
  // is read and sent. False: that is no such record.
  bool not_there(std::uint64_t number);

  // Sends what is to be sent while there is room for about so many bytes.
  void pump(std::uint64_t room, Instant now);

  // From now on synchronous, unless the mode says never: what differs does not grow any more.
  void keep_in_step();
  // What the target has by now goes to its stable storage, so that little is left for the end and
  // much is there for another move if this one breaks off. Nothing where nothing went since.
  void flush_ahead();
  // The guest is about to be stopped, for which QEMU waits until all its writes are answered: they
  // are, and on their way.
  void release_writes();
  // The guest stands: nothing is written any more. All that is left goes, and the end.
  void finish();
  bool end_sent() const { return end_sent_; }
  bool finished() const { return end_sent_ && acked_ == sent_ && dirty_bytes() == 0; }
  // Everything that differs is marked; see compare(). Not while the target may yet pass over a
  // copy.
  bool all_known() const;

  std::uint64_t dirty_bytes() const;
  // Not yet known to be at the target: dirty, being read, or on its way.
  std::uint64_t remaining_bytes() const { return dirty_bytes() + reading_bytes_ + unacked_bytes_; }
  // Synchronous, and nothing but what is in flight is missing.
  bool in_step() const {
    return synchronous_ && dirty_bytes() == 0 && reads_.empty() && all_known();
  }
  bool synchronous() const { return synchronous_; }
  std::uint64_t acked() const { return acked_; }  // records
  std::uint64_t sent() const { return sent_; }

 private:
  struct Read {
    std::uint8_t disk = 0;
    Extent extent;
  };
  struct Sent {
    std::uint64_t bytes = 0;
    WriteToken token;
    bool waits = false;  // the token, for this one's acknowledgement
    bool ahead = false;  // it was answered before that
    Extent extent;       // of such a write
    Instant at{};
  };

  // As what a block goes; nullopt: it does not.
  struct Going {
    std::optional<RecordKind> kind{};
    Digest digest{};  // of a copy
  };
  // On its way: the target may have it no more.
  struct Copy {
    std::uint64_t number = 0;  // of its record
    std::uint8_t disk = 0;
    Extent extent;
    Digest digest{};
  };

  bool learn_seed(const SeedPart& part);
  bool learn_key(const KeyPart& part);
  void send(const Record& record);
  void send_in_step(const Record& record, WriteToken token, Instant now);
  void mark_what_is_read(std::uint8_t disk, Extent extent);
  bool is_read(std::uint8_t disk, Extent extent) const;
  std::optional<Extent> next_to_read(std::uint8_t disk);
  void send_as_it_is(std::uint8_t disk, Extent extent, BytesView data);
  Going look_at(std::uint8_t disk, std::uint64_t offset, BytesView block);
  void send_blocks(std::uint8_t disk, Extent extent, const Going& going, BytesView data);
  void fall_back();
  void answer_all();
  void be_asynchronous();
  bool is_late(Instant now) const;

  std::vector<DirtyMap> maps_;
  std::vector<Seed> seeds_;  // none: the target's disks are new
  std::optional<crypto::KeyedHash> digest_;
  Catalogue catalogue_;
  std::deque<Copy> copies_;  // not acknowledged, in order
  std::uint64_t same_bytes_ = 0, elsewhere_bytes_ = 0;
  Mode mode_;
  OutboundSink& sink_;
  std::vector<Read> reads_;
  std::deque<Sent> unacked_;
  std::uint64_t sent_ = 0, acked_ = 0;  // records
  std::uint64_t flushed_ = 0;           // records, with the last flush ahead
  std::uint64_t in_step_after_ = 0;     // records; acknowledged before it is synchronous again
  std::uint64_t reading_bytes_ = 0, unacked_bytes_ = 0;
  std::uint64_t ahead_bytes_ = 0;  // of unacked_bytes_, answered as they went
  std::size_t next_disk_ = 0;
  bool wanted_synchronous_, synchronous_;
  bool hurries_ = false, finishing_ = false, end_sent_ = false;
};

}  // namespace godwit::disk

#pragma once
// One transfer: the streams of one migration between two agents, over one lane or several,
// resumable.
//
//   QEMU -> space()/commit() -> OutStream ring -> DATA -> lanes -> FrameReader -> InStream ->
//   deliver()
//                                  ^ kept until ACK                                |
//                                  +------------------- ACK <----------------------+
//
// A lane is any reliable byte stream (TLS over TCP). Whichever has room carries the next frame; the
// receiver puts them in order. A lane may die at any byte: what was on it and is not acknowledged
// goes by the others, or by the next that comes; in HELLO each side tells what it has, which need
// not be sent again. Bytes that the consumer does not take wait at the receiver, bounded by the
// window; then the sender stops taking from its writer: QEMU only sees a slow socket. Every DATA
// frame carries XXH3-64, and END carries XXH3-128 of all bytes as the writer wrote them, compared
// with all bytes as the consumer took them (invariant 3).
//
// Pure: no I/O, no clock; owned by one thread. Callbacks of the sink must not call back into the
// transfer. After each feed/take/consumer_ready the owner looks whether there is space() again and
// whether take() has something, and arms one timer for next_tick(). Bytes:
// docs/protocol/transfer.md.
#include <array>
#include <map>
#include <memory>
#include <optional>

#include "base/units.hh"
#include "stream/delivery_rate.hh"
#include "stream/in_stream.hh"
#include "stream/out_stream.hh"
#include "stream/token_bucket.hh"

namespace godwit::stream {

// Unacknowledged bytes: 1 Gbit/s x 200 ms = 25 MB, rounded up to a power of two.
inline constexpr std::size_t kMemoryWindow = 32 << 20;
inline constexpr std::size_t kReturnPathWindow = 256 << 10;
inline constexpr std::size_t kKnownWindow = 4 << 20;  // names of 1 GiB of pages
inline constexpr std::size_t kDiskWindow = 32 << 20;  // as memory's
inline constexpr std::size_t kDiskAckWindow = 64 << 10;
inline constexpr std::size_t kDiskSeedWindow = 256 << 10;  // digests of 1 GiB of disks
// Bytes taken from the writer and not yet given to the lane. Small, as all of them are part of the
// pause once the guest is stopped: 20 ms at 400 Mbit/s.
inline constexpr std::size_t kUnsentLimit = 1 << 20;
// DATA payloads; with a cap, no longer than the cap carries in kMaxFrameTime, as a frame once begun
// delays what is more urgent.
inline constexpr std::size_t kBulkFrame = 128 << 10;
inline constexpr std::size_t kLeastBulkFrame = 16 << 10;
inline constexpr milliseconds kMaxFrameTime{4};
// An ACK goes out after this many delivered bytes or this long, whichever is first.
inline constexpr std::size_t kAckEvery = 256 << 10;
inline constexpr milliseconds kAckDelay{2};
inline constexpr seconds kPingInterval{2};
inline constexpr seconds kLaneSilence{15};                // then the lane is dead
inline constexpr std::chrono::minutes kLanePatience{10};  // without any; then the transfer fails

// What goes first when several streams have something; those that are equal take turns.
enum class Priority : std::uint8_t { kControl, kReturnPath, kFinalMemory, kMemory };

struct StreamSpec {
  StreamId id = 0;
  Role writer{};
  Priority priority{};
  std::size_t window = 0;        // bytes, a power of two, the same on both sides
  std::size_t unsent_limit = 0;  // bytes
};
inline constexpr StreamId kMemoryStream = 1;      // source -> target
inline constexpr StreamId kReturnPathStream = 2;  // target -> source
inline constexpr StreamId kKnownStream = 3;       // target -> source
inline constexpr StreamId kDiskStream = 4;        // source -> target
inline constexpr StreamId kDiskAckStream = 5;     // target -> source
inline constexpr StreamId kDiskSeedStream = 6;    // target -> source
std::vector<StreamSpec> vm_streams();
// With what the target knows of the vm's memory.
std::vector<StreamSpec> compact_vm_streams();
// Beside those of a vm with disks.
std::vector<StreamSpec> disk_streams();

struct TransferConfig {
  TransferId id;
  Role role{};
  std::vector<StreamSpec> streams = vm_streams();
  Nanoseconds patience = kLanePatience;
};

class TransferSink {
 public:
  virtual ~TransferSink() = default;
  // Bytes taken; fewer than given: no more until consumer_ready(stream).
  virtual std::size_t deliver(StreamId stream, BytesView bytes) = 0;
  // All bytes of an incoming stream were delivered and verified against the writer's sum.
  virtual void stream_ended(StreamId stream) = 0;
  // The peer did so with an outgoing one.
  virtual void end_acknowledged(StreamId stream) = 0;
  // Given up, once, whatever the lane does: a wrong sum, the peer's word, patience at an end.
  virtual void transfer_failed(const Error& why) = 0;
};

struct OutStats {
  std::uint64_t offered = 0, sent = 0, acked = 0, resent = 0;  // bytes
  std::uint64_t unsent() const { return offered - sent; }
  std::uint64_t backlog() const { return offered - acked; }  // not yet in the consumer at the peer
};
struct InStats {
  std::uint64_t received = 0, delivered = 0;  // bytes
};
struct TransferStats {
  std::map<StreamId, OutStats> out;
  std::map<StreamId, InStats> in;
  std::uint64_t lane_bytes_out = 0, lane_bytes_in = 0;  // with frame headers and re-sent bytes
  std::uint32_t lanes = 0;                              // used so far
  std::uint32_t lanes_up = 0;
  BitRate delivery_rate;                // of acknowledged bytes; zero: unknown yet
  std::optional<Nanoseconds> lane_rtt;  // the last that was measured; with queueing, both ways
};

// A lane that is of no more use: the transfer has let go of it, as in lane_down(). Close it and
// bring another, unless the transfer has failed().
struct LaneFault {
  LaneNumber lane = 0;
  Error why;
};

class Transfer final {
 public:
  Transfer(TransferConfig config, TransferSink& sink, Instant now);
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // Writer. space(): contiguous room to read(2) into, empty when the writer has to wait;
  // commit(): that many bytes of it are filled. offer(): both with a copy; returns bytes taken.
  MutableBytes space(StreamId stream);
  void commit(StreamId stream, std::size_t count);
  std::size_t offer(StreamId stream, BytesView bytes);
  void end(StreamId stream);
  void set_priority(StreamId stream, Priority priority);

  // Consumer: it takes bytes again after it took fewer than given.
  void consumer_ready(StreamId stream, Instant now);

  // Lanes, each by its number; one that comes up takes the place of its number's.
  void lane_up(LaneNumber lane, Instant now);
  void lane_down(LaneNumber lane, Instant now);
  bool has_lane() const;
  bool has_lane(LaneNumber lane) const { return lanes_.at(lane) != nullptr; }
  std::optional<LaneFault> feed(LaneNumber lane, BytesView from_lane, Instant now);
  // Without a copy: the next bytes for the lane (empty: nothing now), then how many it took. A
  // view is valid until the next call of any other function.
  BytesView peek(LaneNumber lane, Instant now);
  void advance(LaneNumber lane, std::size_t count);
  // With a copy: fills `into` from its front, returns bytes written.
  std::size_t take(LaneNumber lane, MutableBytes into, Instant now);
  // By this lane, which is up, or when it came up.
  Instant last_heard(LaneNumber lane) const;

  std::optional<LaneFault> tick(Instant now);  // call until there is none
  Instant next_tick() const;  // never in the past for long: call tick() and then take()

  // All lane bytes count; nullopt: no cap. Urgent frames do not wait for it.
  void set_bandwidth(std::optional<BitRate> cap, Instant now);
  // Gives up; the peer is told `why` if a lane lives or comes.
  void abort(std::string why, Instant now);

  const TransferId& id() const { return config_.id; }
  const std::optional<Error>& failed() const { return failed_; }
  // Every stream ended and was verified, both ways, and the lane took all there was to say. The
  // peer may still not have heard it if the lane dies now: keep the transfer until the hand-over is
  // settled by other means.
  bool finished() const;
  TransferStats stats() const;

 private:
  struct Out;
  struct In;
  struct Lane;

  Out& out(StreamId stream) const;
  std::uint64_t keep_from(const Out& out) const;
  // Receiving: transfer_receive.cc
  Result<> handle(Lane& lane, const FramePart& part, Instant now);
  Result<> handle_hello(Lane& lane, const FramePart& part, Instant now);
  Result<> handle_data(const FramePart& part, Instant now);
  Result<> handle_ack(const FrameHeader& header);
  Result<> handle_end(const FramePart& part, Instant now);
  Result<> judge(In& in, InStream::Verdict verdict, Instant now);
  std::size_t consume(In& in, BytesView bytes);
  void after_delivery(In& in, Instant now);
  In* find_in(StreamId stream);
  LaneFault lane_fault(LaneNumber lane, Instant now, const std::string& what);
  // Sending: transfer_send.cc
  void schedule(Lane& lane, Instant now);
  void append_hello(LaneNumber number);
  void append_acks(Lane& lane, Instant now);
  void append_data(Lane& lane, Instant now);
  bool is_bulk(const Out& out) const;
  std::size_t frame_limit(const Out& out) const;
  Out* next_out();

  void give_up(Error why, bool tell_peer);
  bool lane_limited() const;

  TransferConfig config_;
  TransferSink& sink_;
  std::vector<std::unique_ptr<Out>> outs_;
  std::vector<std::unique_ptr<In>> ins_;
  std::optional<Error> failed_;
  std::optional<std::string> reset_;  // still to be told to the peer

  std::array<std::unique_ptr<Lane>, kMaxLanes> lanes_;
  TokenBucket bucket_;
  DeliveryRate rate_;

  Instant alone_since_{};  // without a lane
  std::uint64_t lane_bytes_out_ = 0, lane_bytes_in_ = 0;
  std::uint32_t lanes_used_ = 0;
  std::uint64_t turns_ = 0;
  std::optional<Nanoseconds> lane_rtt_;
};

}  // namespace godwit::stream

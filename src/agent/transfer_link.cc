#include "agent/transfer_link.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "crypto/keyed_hash.hh"

namespace godwit::agent {

using stream::kDiskAckStream;
using stream::kDiskSeedStream;
using stream::kDiskStream;
using stream::kKnownStream;
using stream::kMemoryStream;
using stream::kReturnPathStream;
using stream::StreamId;

namespace {

constexpr std::size_t kUnwantedRead = 256 << 10;
constexpr std::size_t kHurriedRead = 64 << 10;
constexpr std::size_t kHungry = 64 << 10;  // 1 ms at 500 Mbit/s

// The best that TCP measured is of one round trip: up to 1.5 times what the path carries (seen).
constexpr double kMostIsMean = 0.5;

constexpr Nanoseconds kLeastTick = milliseconds(1);

std::vector<stream::StreamSpec> streams_of(bool coded, bool disks) {
  auto streams = coded ? stream::compact_vm_streams() : stream::vm_streams();
  if (!disks) return streams;
  for (const stream::StreamSpec& each : stream::disk_streams()) streams.push_back(each);
  return streams;
}

}  // namespace

// The marks of a stream that is not encoded.
class TransferLink::PlainMarks final : public stream::QemuSink {
 public:
  explicit PlainMarks(TransferLink& link) : link_(link) {}
  void push(BytesView bytes) { parser_.push(bytes); }

 private:
  void opaque(BytesView) override {}
  void page(const stream::PageRecord&) override {}
  void mark(const stream::QemuMark& mark) override { link_.mark(mark); }

  TransferLink& link_;
  stream::QemuParser parser_{*this};
};

TransferLink::TransferLink(os::Loop& loop, const stream::TransferId& id, stream::Role role,
                           Disks disks, std::optional<Coding> coding, Events events)
    : loop_(loop),
      role_(role),
      outgoing_(is_source() ? kMemoryStream : kReturnPathStream),
      incoming_(is_source() ? kReturnPathStream : kMemoryStream),
      events_(std::move(events)),
      transfer_(
          {.id = id, .role = role, .streams = streams_of(coding.has_value(), disks == Disks::some)},
          *this, loop.now()),
      known_(coding ? catalogue_of(coding->known) : Bytes{}),
      tells_known_(!is_source() && coding) {
  if (is_source() && coding) {
    encode_ = std::make_unique<EncodeStage>(
        loop, coding->settings, std::move(coding->offers),
        EncodeStage::Events{.changed = [this] { pump(); },
                            .mark = [this](const stream::QemuMark& each) { mark(each); }});
  } else if (is_source()) {
    marks_ = std::make_unique<PlainMarks>(*this);
  } else if (coding) {
    decode_ = std::make_unique<DecodeStage>(
        loop, coding->settings, std::move(coding->known), std::move(coding->group),
        DecodeStage::Events{.changed = [this] { pump(); },
                            .failed = [this](std::string why) { abort(why); }});
    tell_known();
  }
  arm();
}

TransferLink::~TransferLink() = default;

void TransferLink::use_qemu(std::unique_ptr<os::ByteStream> qemu) {
  qemu_ = std::move(qemu);
  qemu_->start({.readable =
                    [this] {
                      qemu_readable_ = true;
                      pump();
                    },
                .writable =
                    [this] {
                      if (std::exchange(consumer_waits_, false) && !decode_) {
                        transfer_.consumer_ready(incoming_, loop_.now());
                      }
                      pump();
                    },
                .closed = [this](const std::string& reason) { qemu_closed(reason); }});
}

void TransferLink::qemu_closed(const std::string&) {
  while (fill_from_qemu()) {
  }
  qemu_ended_ = true;
  if (!aborted_) pump();
}

void TransferLink::take_only(std::optional<ByteCount> bytes) {
  take_only_ = bytes;
  pump();
}

void TransferLink::bound_backlog(Backlog bound) {
  bound_ = bound;
  pump();
}

void TransferLink::hurry(ByteCount most) {
  hurries_ = true;
  bound_backlog({.most = most});
}

void TransferLink::mark(const stream::QemuMark& mark) {
  if (events_.mark) events_.mark(mark);
}

// ---- the stream that we write ----

TransferLink::Memory TransferLink::memory() {
  const stream::OutStats out = transfer_.stats().out.at(outgoing_);
  Memory memory{.offered = encode_ ? encode_->raw() : out.offered,
                .acked = encode_ ? encode_->raw_until(out.acked) : out.acked,
                .rate = {},
                .encoded = encode_ ? encode_->encoded()
                                   : EncodeStage::Encoded{.raw = out.offered,
                                                          .coded = out.offered,
                                                          .memory = out.offered},
                .memory_taken = encode_ ? encode_->memory_taken() : out.acked,
                .memory_rate = {},
                .lane_backlog = out.backlog() + (encode_ ? encode_->waiting() : 0)};
  rate_.acknowledged(memory.acked - std::exchange(acked_, memory.acked));
  if (encode_) encode_->adapt(out.unsent() > 0);
  rate_.pass(loop_.now(), out.unsent() > 0 || (encode_ && encode_->busy()));
  memory.rate = rate_.rate();
  memory_rate_.acknowledged(memory.memory_taken -
                            std::exchange(memory_taken_, memory.memory_taken));
  memory_rate_.pass(loop_.now(), out.backlog() > 0 || (encode_ && encode_->busy()));
  memory.memory_rate = memory_rate_.rate();
  return memory;
}

BitRate TransferLink::path_rate() const {
  double most = 0;
  for (const auto& [number, lane] : lanes_) {
    if (lane.pace) most += static_cast<double>(lane.pace->delivered().bits_per_second);
  }
  BitRate rate{static_cast<std::uint64_t>(most * kMostIsMean)};
  rate = std::max(rate, transfer_.stats().delivery_rate);
  return cap_ ? std::min(rate, *cap_) : rate;
}

MutableBytes TransferLink::writers_room() {
  return encode_ ? encode_->room() : transfer_.space(outgoing_);
}

void TransferLink::written(std::size_t count) {
  encode_ ? encode_->commit(count) : transfer_.commit(outgoing_, count);
}

bool TransferLink::end_writing() {
  if (encode_) {
    encode_->finish();
    if (!encode_->ended()) return false;
  }
  transfer_.end(outgoing_);
  return true;
}

// What the target knows; an empty catalogue ends at once.
void TransferLink::tell_known() {
  if (!tells_known_) return;
  known_told_ += transfer_.offer(kKnownStream, BytesView(known_).subspan(known_told_));
  if (known_told_ < known_.size()) return;
  transfer_.end(kKnownStream);
  known_ = {};
  tells_known_ = false;
}

std::size_t TransferLink::learn(BytesView catalogue) {
  if (!encode_->learn(catalogue)) {
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired()) abort("the target says it knows more pages than the vm has");
    });
  }
  return catalogue.size();
}

bool TransferLink::move_coded() {
  if (!encode_) return false;
  const std::size_t count = transfer_.offer(outgoing_, encode_->coded());
  encode_->took(count);
  return count > 0;
}

// QEMU gives nothing now, or we take nothing: before the lane runs dry what is there goes out.
void TransferLink::flush_if_hungry() {
  if (!encode_ || encode_->busy()) return;
  if (transfer_.stats().out.at(outgoing_).unsent() < kHungry) encode_->flush();
}

MutableBytes TransferLink::room_for_qemu() {
  if (hurries_ && encode_ && encode_->busy()) return {};
  MutableBytes room = writers_room();
  if (hurries_) room = room.first(std::min(room.size(), kHurriedRead));
  const Memory now = memory();
  if (is_far_behind()) return {};
  if (!take_only_) return room;
  const std::uint64_t left = take_only_->bytes - std::min(take_only_->bytes, now.offered);
  return room.first(std::min(room.size(), left));
}

bool TransferLink::is_far_behind() const {
  std::uint64_t most = bound_.most.bytes;
  if (bound_.beyond) {
    most = std::max(most, in_network().bytes + bound_.beyond->bytes);
  }
  const bool behind_in_memory =
      bound_.memory && encode_ &&
      encode_->encoded().memory - encode_->memory_taken() >= bound_.memory->bytes;
  return behind_in_memory || transfer_.stats().out.at(outgoing_).backlog() >= most;
}

bool TransferLink::fill_from_qemu() {
  if (aborted_) {
    static thread_local Bytes nowhere(kUnwantedRead);
    if (qemu_->read(nowhere) > 0) return true;
    return qemu_readable_ = false;
  }
  const MutableBytes room = room_for_qemu();
  const std::size_t count = qemu_ && !room.empty() ? qemu_->read(room) : 0;
  if (count == 0) {
    if (!room.empty()) qemu_readable_ = false;
    return false;
  }
  if (marks_) marks_->push(room.first(count));
  written(count);
  return true;
}

// ---- disks ----

std::size_t TransferLink::offer_disks(BytesView bytes) {
  const std::size_t taken = transfer_.offer(is_source() ? kDiskStream : kDiskAckStream, bytes);
  if (taken > 0) pump();
  return taken;
}

std::size_t TransferLink::offer_seeds(BytesView bytes) {
  const std::size_t taken = transfer_.offer(kDiskSeedStream, bytes);
  if (taken > 0) pump();
  return taken;
}

void TransferLink::end_disks() {
  if (std::exchange(disks_ended_, true)) return;
  transfer_.end(is_source() ? kDiskStream : kDiskAckStream);
  pump();
}

void TransferLink::take_disks() {
  transfer_.consumer_ready(is_source() ? kDiskAckStream : kDiskStream, loop_.now());
  pump();
}

void TransferLink::take_seeds() {
  transfer_.consumer_ready(kDiskSeedStream, loop_.now());
  pump();
}

Bytes TransferLink::seed_key() const {
  Bytes key = to_bytes(transfer_.id().bytes);
  key.resize(crypto::KeyedHash::kKeySize);
  return key;
}

std::uint64_t TransferLink::unsent_of_disks() const {
  return transfer_.stats().out.at(is_source() ? kDiskStream : kDiskAckStream).unsent();
}

// Moves what can move. Not re-entered: callbacks of the streams may end up here again.
void TransferLink::pump() {
  if (pumping_) return;
  pumping_ = true;
  const std::weak_ptr alive(alive_);
  bool more = true;
  while (more) {
    more = qemu_ && qemu_readable_ && !qemu_ended_ && fill_from_qemu();
    if (!more) flush_if_hungry();
    tell_known();
    if (move_coded()) more = true;
    if (move_raw()) more = true;
    if (qemu_ended_ && qemu_ && !aborted_) {
      while (fill_from_qemu()) more = true;
      if (!room_for_qemu().empty() || (encode_ && encode_->finished())) {
        if (end_writing()) {
          loop_.post([gone = std::shared_ptr<os::ByteStream>(std::move(qemu_))] {});
        }
      }
    }
    write_lanes();
    if (alive.expired()) return;
  }
  pumping_ = false;
  if (disks_.room) disks_.room();
  if (alive.expired()) return;
  arm();
}

void TransferLink::arm() {
  // What is due may have to wait for room in a lane: then `writable` comes first.
  timer_ = loop_.at(std::max(transfer_.next_tick(), loop_.now() + kLeastTick), [this] {
    const std::weak_ptr alive(alive_);
    while (const auto fault = transfer_.tick(loop_.now())) drop_lane(fault->lane, fault->why.text);
    if (!alive.expired()) pump();
  });
}

void TransferLink::abort(const std::string& why) {
  transfer_.abort(why, loop_.now());
  pump();
  if (is_source()) release_qemu();
}

// While the guest's devices are saved QEMU holds its big lock: with nobody reading it would neither
// answer nor let the guest run. The stream may be calling us: it goes afterwards.
void TransferLink::release_qemu() {
  if (throws_away_) {
    aborted_ = qemu_readable_ = true;
    return pump();
  }
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    qemu_.reset();
    qemu_readable_ = false;
    qemu_ended_ = true;
  });
}

// ---- the stream that we consume ----

std::size_t TransferLink::deliver(StreamId stream, BytesView bytes) {
  if (stream == kKnownStream) return learn(bytes);
  if (stream == kDiskStream || stream == kDiskAckStream) {
    return disks_.bytes ? disks_.bytes(bytes) : bytes.size();  // nobody's any more
  }
  if (stream == kDiskSeedStream) return disks_.seeds ? disks_.seeds(bytes) : bytes.size();
  return decode_ ? decode_->take(bytes) : write_to_qemu(bytes);
}

std::size_t TransferLink::write_to_qemu(BytesView bytes) {
  if (!qemu_) {
    // The source's QEMU closes its socket when it is done; what the target's still says is moot.
    if (is_source() && qemu_ended_) return bytes.size();
    consumer_waits_ = true;
    if (events_.qemu_wanted && !std::exchange(asked_for_qemu_, true)) {
      loop_.post([this, alive = std::weak_ptr(alive_)] {
        if (!alive.expired()) events_.qemu_wanted();
      });
    }
    return 0;  // not connected yet: `writable` after use_qemu() continues
  }
  const std::size_t taken = qemu_->write(bytes);
  if (taken < bytes.size()) consumer_waits_ = true;
  return taken;
}

bool TransferLink::move_raw() {
  if (!decode_) return false;
  bool moved = false;
  while (!consumer_waits_ && !decode_->raw().empty()) {
    const std::size_t taken = write_to_qemu(decode_->raw());
    decode_->took(taken);
    moved = moved || taken > 0;
  }
  transfer_.consumer_ready(incoming_, loop_.now());
  if (decode_->checkpointed() && !std::exchange(package_told_, true)) {
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired() && events_.package_verified) events_.package_verified();
    });
  }
  maybe_verified();
  return moved;
}

void TransferLink::maybe_verified() {
  if (!stream_ended_) return;
  if (decode_ && !decode_->verified()) {
    if (decode_->idle()) abort("the memory stream ended early");
    return;
  }
  stream_ended_ = false;
  // Not from inside a callback of the transfer.
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    if (qemu_) qemu_->finish();
    if (events_.memory_verified) events_.memory_verified();
  });
}

void TransferLink::stream_ended(StreamId stream) {
  if (stream == kKnownStream) {
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired() && events_.known_learnt) events_.known_learnt();
    });
  }
  if (stream != kMemoryStream) return;
  stream_ended_ = true;
  if (!decode_) maybe_verified();
}

void TransferLink::end_acknowledged(StreamId stream) {
  if (stream != kMemoryStream) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && events_.memory_verified) events_.memory_verified();
  });
}

void TransferLink::transfer_failed(const Error& why) {
  loop_.post([this, alive = std::weak_ptr(alive_), text = why.text] {
    if (!alive.expired() && events_.failed) events_.failed(text);
  });
}

}  // namespace godwit::agent

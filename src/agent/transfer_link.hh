#pragma once
// Joins the ends of one transfer at one agent: QEMU's unix socket, the resumable transfer, and its
// lanes (TLS over TCP) to the other agent.
//
//   source:  QEMU --memory--> [encoder] --> transfer ==lanes==> ...
//                 <-------- return path --- transfer <=========
//   target:  the same with the directions exchanged, and a decoder
//
// Both roles are the same code: each writes one stream and consumes the other. The source paces its
// lanes just below what the path carries (stream/pacer.hh), so that wires are not drowned. Control
// thread: at 400 Mbit/s the lanes take a small part of a core (bench/RESULTS.md); encoder and
// decoder have threads of their own.
#include <functional>
#include <map>
#include <memory>

#include "agent/decode_stage.hh"
#include "agent/encode_stage.hh"
#include "agent/paced_socket.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"
#include "stream/delivery_rate.hh"
#include "stream/transfer.hh"

namespace godwit::agent {

class TransferLink final : public stream::TransferSink {
 public:
  struct Events {
    std::function<void(const stream::QemuMark&)> mark;  // in the memory stream, at the source
    // Bring another with use_lane().
    std::function<void(stream::LaneNumber, std::string)> lane_lost;
    std::function<void()> qemu_wanted{};   // bytes have come for one; once
    std::function<void()> known_learnt{};  // at the source: all that the target knows
    // At the target, of a post-copy: all that the vm needs to run came, and sums agree.
    std::function<void()> package_verified{};
    std::function<void()> memory_verified;    // the target took all, sums agree; both roles
    std::function<void(std::string)> failed;  // given up; once
  };

  // QEMU's memory stream as it passes, in its own bytes whatever they are encoded as.
  struct Memory {
    std::uint64_t offered = 0;       // by QEMU
    std::uint64_t acked = 0;         // of these, taken by the target
    BitRate rate;                    // lately, while there was a backlog; zero: unknown yet
    EncodeStage::Encoded encoded;    // so far; the same thrice where nothing is encoded
    std::uint64_t memory_taken = 0;  // by the target, of encoded.memory
    BitRate memory_rate;             // of this, as `rate`
    std::uint64_t lane_backlog = 0;  // of the encoded bytes, not yet taken by the target
  };

  struct Coding {
    codec::Settings settings;
    codec::GroupOffers offers{};            // at the source
    codec::Known known{};                   // at the target, of the vm's memory
    std::shared_ptr<SharedReader> group{};  // at the target
  };
  // Without `coding` the memory stream passes as it is.
  enum class Disks { none, some };
  TransferLink(os::Loop& loop, const stream::TransferId& id, stream::Role role, Disks disks,
               std::optional<Coding> coding, Events events);
  ~TransferLink() override;

  void use_qemu(std::unique_ptr<os::ByteStream> qemu);
  // In the place of what had its number. `early`: bytes that were read from it to see which
  // transfer it is for; `of`: how many lanes there are meant to be.
  void use_lane(stream::LaneNumber number, std::unique_ptr<os::ByteStream> lane,
                BytesView early = {}, std::size_t of = 1);
  // The path to the peer changed: lanes are dropped by which the peer is not heard soon.
  void doubt_lanes();
  // Of the link: TCP, IP and TLS included.
  void set_bandwidth(std::optional<BitRate> cap);
  // The same, so that writes of the guest do not wait behind the rest: the lesser of both holds.
  void hold_back(std::optional<BitRate> cap);
  // Leaves in QEMU's socket what comes after the first `bytes` of its stream; nullopt: no longer.
  void take_only(std::optional<ByteCount> bytes);
  // Leaves QEMU's stream in its socket while the consumer at the peer is behind by so much, in
  // bytes as lanes carry them, and by `beyond` more than the network holds.
  struct Backlog {
    ByteCount most;
    std::optional<ByteCount> beyond{};  // nullopt: what the network holds counts like the rest
    std::optional<ByteCount> memory{};  // and of the vm's memory, of which much may be few bytes
  };
  void bound_backlog(Backlog bound);
  // The same, and what is encoded at once is bounded, too: for post-copy, where the vm waits for
  // what QEMU writes next, behind all that is on its way.
  void hurry(ByteCount most);
  // Who has the vm's disks, until use_disks({}).
  struct DiskEvents {
    // Records at the target, acknowledgements at the source: how much was taken. Less than given:
    // no more until take_disks(). Not to call back into here.
    std::function<std::size_t(BytesView)> bytes{};
    // At the source, likewise: what the target has already.
    std::function<std::size_t(BytesView)> seeds{};
    std::function<void()> room{};  // offer_disks() may take more than before
  };
  void use_disks(DiskEvents events) { disks_ = std::move(events); }
  // The other way: how much was taken.
  std::size_t offer_disks(BytesView bytes);
  std::size_t offer_seeds(BytesView bytes);  // at the target
  void end_disks();
  void take_disks();
  void take_seeds();
  // Of what was offered, not yet given to a lane.
  std::uint64_t unsent_of_disks() const;
  // The vm's memory waits for no other vm's any more, see codec::Encoder.
  void leave_group() {
    if (encode_) encode_->leave_group();
  }
  // The source lets go of its QEMU, whose migration fails then if it is still under way; one that
  // may be in post-copy would wait for ever: what it says is read and thrown away until it ends.
  void abort(const std::string& why);
  void throw_away_after_abort() { throws_away_ = true; }

  // Digests of what the target has of the disks are made with this key: it need not be secret.
  Bytes seed_key() const;
  bool has_lane() const { return !lanes_.empty(); }
  stream::TransferStats stats() const { return transfer_.stats(); }
  Memory memory();
  // What the path carries, as far as it was used, within the cap; zero: unknown yet.
  BitRate path_rate() const;
  // Nothing where nothing is encoded.
  const codec::Stats* encoded() const { return encode_ ? &encode_->stats() : nullptr; }

 private:
  // stream::TransferSink
  std::size_t deliver(stream::StreamId stream, BytesView bytes) override;
  void stream_ended(stream::StreamId stream) override;
  void end_acknowledged(stream::StreamId stream) override;
  void transfer_failed(const Error& why) override;

  bool is_source() const { return role_ == stream::Role::kSource; }
  void release_qemu();
  void apply_caps();
  void qemu_closed(const std::string& reason);
  void read_lane(stream::LaneNumber number);
  void drop_lane(stream::LaneNumber number, const std::string& reason);
  ByteCount in_network() const;
  class PlainMarks;
  void mark(const stream::QemuMark& mark);
  MutableBytes writers_room();
  void written(std::size_t count);
  bool end_writing();  // false: not yet
  void flush_if_hungry();
  void tell_known();
  std::size_t learn(BytesView catalogue);
  bool move_coded();  // true when bytes moved
  bool move_raw();
  MutableBytes room_for_qemu();
  bool is_far_behind() const;
  bool fill_from_qemu();  // true when bytes came
  std::size_t write_to_qemu(BytesView bytes);
  void maybe_verified();
  void write_lanes();
  void pump();
  void arm();

  os::Loop& loop_;
  stream::Role role_;
  stream::StreamId outgoing_;
  stream::StreamId incoming_;
  Events events_;
  DiskEvents disks_;
  stream::Transfer transfer_;
  std::unique_ptr<os::ByteStream> qemu_;
  struct Lane {
    std::unique_ptr<os::ByteStream> stream;
    std::unique_ptr<PacedSocket> pace;  // at the source
    bool is_full = false;               // until it is `writable`
  };
  std::map<stream::LaneNumber, Lane> lanes_;
  std::optional<ByteCount> take_only_;
  std::optional<BitRate> cap_, writes_cap_;
  Backlog bound_{.most = {stream::kMemoryWindow}};
  bool hurries_ = false;
  bool qemu_readable_ = false;
  bool qemu_ended_ = false;
  bool consumer_waits_ = false;
  bool throws_away_ = false, aborted_ = false, asked_for_qemu_ = false, package_told_ = false;
  bool stream_ended_ = false;  // the incoming memory stream, as the lane carries it
  std::unique_ptr<PlainMarks> marks_;
  std::unique_ptr<EncodeStage> encode_;
  std::unique_ptr<DecodeStage> decode_;
  Bytes known_;                 // to be told still: a catalogue
  std::size_t known_told_ = 0;  // bytes of it
  bool tells_known_;
  stream::DeliveryRate rate_, memory_rate_;
  std::uint64_t acked_ = 0;         // of QEMU's bytes, as rate_ knows
  std::uint64_t memory_taken_ = 0;  // as memory_rate_ knows
  bool pumping_ = false, disks_ended_ = false;
  os::Loop::Timer timer_, doubt_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

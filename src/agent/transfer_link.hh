#pragma once
// Joins the three ends of one transfer at one agent: QEMU's unix socket, the resumable transfer,
// and the lane (TLS over TCP) to the other agent.
//
//   source:  QEMU --memory--> transfer --lane--> ...      ... --lane--> transfer --return path-->
//   QEMU target:  the same with the directions exchanged
//
// Both roles are the same code: each writes one stream and consumes the other. The source paces its
// lane just below what the path carries (stream/pacer.hh), so that wires are not drowned. Bytes of
// the memory stream are shown to `observe` as they pass, for the parser's marks. Control thread: at
// 400 Mbit/s the lane takes a small part of a core (bench/RESULTS.md).
#include <functional>
#include <memory>

#include "agent/paced_socket.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"
#include "stream/transfer.hh"

namespace godwit::agent {

class TransferLink final : public stream::TransferSink {
 public:
  struct Events {
    std::function<void(BytesView)> observe;      // memory bytes, in order, once
    std::function<void(std::string)> lane_lost;  // bring another with use_lane()
    std::function<void()> memory_verified;       // the target took all, sums agree; both roles
    std::function<void(std::string)> failed;     // given up; once
  };

  TransferLink(os::Loop& loop, stream::TransferConfig config, Events events);
  ~TransferLink() override;

  void use_qemu(std::unique_ptr<os::ByteStream> qemu);
  // `early`: bytes that were read from the lane to see which transfer it is for.
  void use_lane(std::unique_ptr<os::ByteStream> lane, BytesView early = {});
  // The path to the peer changed: the lane is dropped unless the peer is heard by it soon.
  void doubt_lane();
  void set_bandwidth(std::optional<BitRate> cap);
  // Leaves in QEMU's socket what comes after the first `bytes` of its stream; nullopt: no longer.
  void take_only(std::optional<ByteCount> bytes);
  // Leaves QEMU's stream in its socket while the consumer at the peer is so far behind.
  void bound_backlog(ByteCount bytes);
  // The source lets go of its QEMU, whose migration fails then if it is still under way.
  void abort(const std::string& why);

  bool has_lane() const { return lane_ != nullptr; }
  stream::TransferStats stats() const { return transfer_.stats(); }

 private:
  // stream::TransferSink
  std::size_t deliver(stream::StreamId stream, BytesView bytes) override;
  void stream_ended(stream::StreamId stream) override;
  void end_acknowledged(stream::StreamId stream) override;
  void transfer_failed(const Error& why) override;

  bool is_source() const { return role_ == stream::Role::kSource; }
  void release_qemu();
  void qemu_closed(const std::string& reason);
  void read_lane();
  void drop_lane(const std::string& reason);
  MutableBytes room_for_qemu();
  bool fill_from_qemu();  // true when bytes came
  void write_lane();
  void pump();
  void arm();

  os::Loop& loop_;
  stream::Role role_;
  stream::StreamId outgoing_;
  stream::StreamId incoming_;
  Events events_;
  stream::Transfer transfer_;
  std::unique_ptr<os::ByteStream> qemu_;
  std::unique_ptr<os::ByteStream> lane_;
  std::optional<ByteCount> take_only_;
  ByteCount most_backlog_{stream::kMemoryWindow};
  bool qemu_readable_ = false;
  bool qemu_ended_ = false;
  bool consumer_waits_ = false;
  bool pumping_ = false;
  os::Loop::Timer timer_, doubt_;
  std::unique_ptr<PacedSocket> pace_;  // of lane_, at the source
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// Datagrams in runs. A run is consecutive datagrams of one size to or from one address in one
// contiguous buffer; the kernel cuts it up on the way out (UDP_SEGMENT, udp(7)) and joins it on the
// way in (UDP_GRO), so that one trip through the stack carries up to 64 KiB. Runs go in and out in
// batches (sendmmsg(2), recvmmsg(2)). The in-memory double is os/memory_network.hh.
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/bytes.hh"
#include "base/units.hh"
#include "os/endpoint.hh"
#include "os/fd.hh"

namespace godwit::os {

// UDP_MAX_SEGMENTS of linux/udp.h: 64 until Linux 6.x, 128 later.
constexpr std::size_t kMaxSegments = 64;
// The largest IPv4 datagram: 65,535 less the IP and UDP headers (RFC 768).
constexpr std::size_t kMaxRunBytes = 65507;

// Datagrams of segment_size bytes each, the last may be shorter. At most kMaxSegments and
// kMaxRunBytes.
struct DatagramRun {
  Endpoint to;
  BytesView bytes;
  std::uint16_t segment_size = 0;
};

// `bytes` is owned by the socket, writable (decrypt in place), valid until the next receive.
struct ReceivedRun {
  Endpoint from;
  MutableBytes bytes;
  std::uint16_t segment_size = 0;  // never 0
};

struct DatagramCounters {
  std::uint64_t sent_datagrams = 0;
  std::uint64_t sent_bytes = 0;
  std::uint64_t received_runs = 0;
  std::uint64_t received_bytes = 0;
  std::uint64_t overflowed = 0;   // came while our receive buffer was full: the kernel dropped them
  std::uint64_t too_big = 0;      // runs refused by the interface's MTU: dropped
  std::uint64_t unreachable = 0;  // runs with no route, or forbidden: dropped
};

// One thread. What is sent may be lost, doubled or reordered, as UDP is.
class DatagramSocket {
 public:
  virtual ~DatagramSocket() = default;
  // How many runs from the front were taken; fewer than given when the socket's buffer is full,
  // then offer the rest again when the socket is writable. What cannot be sent at all (too big, no
  // route) is taken, dropped and counted.
  virtual std::size_t send_batch(std::span<const DatagramRun> runs) = 0;
  // Empty when there is nothing now.
  virtual std::span<ReceivedRun> receive_batch() = 0;
  virtual Endpoint local() const = 0;
  virtual const DatagramCounters& counters() const = 0;
};

class UdpSocket final : public DatagramSocket {
 public:
  struct Options {
    // Asked of the kernel beyond its limits where we may (SO_RCVBUFFORCE), else up to them. A burst
    // of 8 MiB is 64 ms at 1 Gbit/s.
    ByteCount receive_buffer{8 * 1024 * 1024};
    ByteCount send_buffer{4 * 1024 * 1024};
    bool segmentation = true;  // false: one datagram per message (for tests and comparison)
  };

  // Binds; port 0 lets the kernel choose. The IPv6 wildcard speaks IPv4 too, and falls back to the
  // IPv4 wildcard where the kernel has no IPv6. Throws SetupError.
  //
  // DF is set and the kernel's own path MTU is ignored (IP_PMTUDISC_PROBE): path MTU is found by
  // RFC 8899 above this, and IP fragments are never sent.
  static std::unique_ptr<UdpSocket> bind(const Endpoint& at, const Options& options);
  static std::unique_ptr<UdpSocket> bind(const Endpoint& at) { return bind(at, Options()); }
  // The same socket for another thread, which sends by it. Throws SetupError.
  std::unique_ptr<UdpSocket> for_another_thread() const;

  std::size_t send_batch(std::span<const DatagramRun> runs) override;
  std::span<ReceivedRun> receive_batch() override;
  Endpoint local() const override { return local_; }
  const DatagramCounters& counters() const override { return counters_; }

  const Fd& fd() const { return fd_; }  // for Loop::watch
  // Sends what is left of a run that was taken in part; false while the buffer is full. send_batch
  // does this first by itself: call it when the socket is writable and there is nothing else to
  // send.
  bool flush();
  // Off after EIO: the interface cannot checksum (found by wireguard-go), the kernel cannot
  // segment.
  bool segments() const { return segmentation_; }

 private:
  struct SendSlots;
  struct ReceiveSlots;
  enum class Outcome { kSent, kFull, kRetry };

  UdpSocket(Fd fd, int family, const Options& options);
  std::size_t send_segmented(std::span<const DatagramRun> runs);
  std::size_t send_singly(const DatagramRun& run);
  Outcome after_error(int error, std::size_t segments);
  bool reachable(const DatagramRun& run) const { return !run.to.is_ipv6 || family_ == AF_INET6; }

  void note_overflow(std::uint32_t kernel_count);

  Fd fd_;
  int family_;
  const Options options_;
  bool segmentation_;
  Endpoint local_;
  DatagramCounters counters_;
  std::uint32_t kernel_overflows_ = 0;
  std::unique_ptr<SendSlots> out_;
  std::unique_ptr<ReceiveSlots> in_;
  // The rest of a run whose first datagrams went out one by one before the buffer was full.
  Bytes left_over_;
  Endpoint left_over_to_;
  std::uint16_t left_over_segment_ = 0;

 public:
  ~UdpSocket() override;
};

}  // namespace godwit::os

#pragma once
// The vm's UDP side: takes account of each client's packets, echoes them, and sends each client the
// stream it asked for. One thread; the socket is non-blocking.
//
// Packets come and leave in batches, once a tick: under emulation a system call is dear (with
// page-table isolation each one empties the vm's emulated TLB twice), and a vm that spends its CPU
// on them answers late after a pause.
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <map>
#include <string>

#include "lab/guest/memory_counter.hh"
#include "lab/guest/protocol.hh"
#include "lab/guest/sequence_log.hh"

namespace godwit::lab {

inline constexpr std::size_t kMaxClients = 8;
// A client that was silent for so long gets no stream and may be forgotten for a new one.
inline constexpr std::uint64_t kClientLeaseTicks = 60ULL * kTicksPerSecond;
// Then ticks have their turn: a vm too slow for its packets (dirty logging slows an emulated one
// down) would otherwise only receive, and its stream would stop.
inline constexpr unsigned kMostReceivedAtOnce = 64;

// Up to kSize datagrams of kPacketBytes for one system call.
class PacketBatch final {
 public:
  static constexpr std::size_t kSize = kMostReceivedAtOnce;

  PacketBatch();
  PacketBatch(const PacketBatch&) = delete;
  PacketBatch& operator=(const PacketBatch&) = delete;

  // Replaces what it holds; returns how many came, 0 when none is there.
  std::size_t receive(int fd);
  BytesView packet(std::size_t i) const;
  const sockaddr_in6& address(std::size_t i) const { return addresses_[i]; }

  bool is_empty() const { return count_ == 0; }
  bool is_full() const { return count_ == kSize; }
  void add(const sockaddr_in6& to, const Packet& packet);
  // Sends and empties it; returns how many the socket did not take.
  std::size_t send(int fd);

 private:
  std::array<std::array<std::byte, kMaxPacketBytes>, kSize> buffers_{};
  std::array<sockaddr_in6, kSize> addresses_{};
  std::array<iovec, kSize> vectors_{};
  std::array<mmsghdr, kSize> messages_{};
  std::size_t count_ = 0;
};

class UdpService final {
 public:
  explicit UdpService(std::uint16_t port);  // exits the process with a message when it cannot bind

  // Takes what is there, at most kMostReceivedAtOnce packets; false: there was nothing.
  bool receive();
  // Takes all that had come by now, for an account of it. A vm that lags has a socket's buffer
  // full.
  void catch_up();
  // One thousandth of a second of the vm's time: the counter grows, packets fall due.
  void tick();
  // Sends what receive() and tick() left to be sent.
  void flush();

  MemoryCounter& counter() { return counter_; }
  // The account of one client as a JSON object; `from` and `limit` bound its list of missing ones.
  std::string report(std::uint64_t client, std::uint64_t from, std::uint64_t limit) const;

 private:
  struct Client {
    sockaddr_in6 address{};
    SequenceLog log;
    std::uint16_t per_second = 0;
    unsigned credit = 0;
    std::uint64_t stream_sent = 0;
    std::uint64_t echoes_sent = 0;
    std::uint64_t heard_at_tick = 0;
  };

  Client* find_or_make(std::uint64_t id);
  void send(const Client& client, const Packet& packet);

  int fd_ = -1;
  PacketBatch incoming_;
  PacketBatch outgoing_;
  std::uint64_t send_failures_ = 0;
  std::uint64_t left_ns_ = 0;  // when the last batch had left
  std::map<std::uint64_t, Client> clients_;
  MemoryCounter counter_;
};

}  // namespace godwit::lab

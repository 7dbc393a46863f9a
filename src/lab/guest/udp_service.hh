#pragma once
// The vm's UDP side: takes account of each client's packets, echoes them, and sends each client the
// stream it asked for. One thread; the socket is non-blocking.
#include <netinet/in.h>

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
inline constexpr unsigned kMostReceivedAtOnce = 32;

class UdpService final {
 public:
  explicit UdpService(std::uint16_t port);  // exits the process with a message when it cannot bind

  int fd() const { return fd_; }
  // Takes what is there, at most kMostReceivedAtOnce packets.
  void receive();
  // One thousandth of a second of the vm's time: the counter grows, packets that are due leave.
  void tick();

  MemoryCounter& counter() { return counter_; }
  // The account of one client as a JSON object; `from` and `limit` bound its list of missing ones.
  std::string report(std::uint64_t client, std::uint64_t from, std::uint64_t limit) const;

 private:
  struct Client {
    sockaddr_in address{};
    SequenceLog log;
    std::uint16_t per_second = 0;
    unsigned credit = 0;
    std::uint64_t stream_sent = 0;
    std::uint64_t echoes_sent = 0;
    std::uint64_t send_failures = 0;
    std::uint64_t heard_at_tick = 0;
  };

  Client* find_or_make(std::uint64_t id);
  void send(Client& client, const Packet& packet);

  int fd_ = -1;
  std::map<std::uint64_t, Client> clients_;
  MemoryCounter counter_;
};

}  // namespace godwit::lab

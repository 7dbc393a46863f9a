#pragma once
// The in-memory double of a network of DatagramSockets: datagrams cross it in advance() only, with
// the delay, jitter, loss, doubling and MTU of their path, drawn from one seed.
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>

#include "os/udp.hh"

namespace godwit::os {

class MemoryNetwork final {
 public:
  struct Path {
    Nanoseconds delay{};
    Nanoseconds jitter{};    // added, uniform in [0, jitter]: reorders
    double loss = 0.0;       // share of the datagrams
    double doubling = 0.0;   // share that arrive twice
    std::size_t mtu = 1500;  // IP; larger datagrams vanish, as with DF and no ICMP
    bool up = true;
  };

  explicit MemoryNetwork(std::uint64_t seed = 1);
  ~MemoryNetwork();

  // A socket at this address, until it is destroyed; the network must outlive it.
  std::unique_ptr<DatagramSocket> attach(const Endpoint& at);
  void set_all(const Path& path) { default_ = path; }
  void set(const Endpoint& from, const Endpoint& to, const Path& path) {
    paths_[{from, to}] = path;
  }
  // Sees each datagram as it is sent; false drops it. For "lose exactly this one".
  void set_filter(std::function<bool(const Endpoint& from, const Endpoint& to, BytesView)> filter) {
    filter_ = std::move(filter);
  }

  // Puts what is due by `now` into the receivers; what is sent from here on is sent at `now`.
  void advance(Instant now);
  std::optional<Instant> next_due() const;
  std::size_t in_flight() const { return flying_.size(); }

 private:
  class Socket;
  struct Flying {
    Endpoint from, to;
    Bytes bytes;
  };

  void send(const Endpoint& from, const Endpoint& to, BytesView datagram);
  const Path& path(const Endpoint& from, const Endpoint& to) const;
  bool chance(double share);

  std::mt19937_64 random_;
  Instant now_{};
  Path default_;
  std::map<std::pair<Endpoint, Endpoint>, Path> paths_;
  std::function<bool(const Endpoint&, const Endpoint&, BytesView)> filter_;
  std::map<Endpoint, Socket*> sockets_;
  std::multimap<Instant, Flying> flying_;
};

}  // namespace godwit::os

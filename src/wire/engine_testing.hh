#pragma once
// Hosts with an Engine each, joined by a perfect network without delay, for unit tests. (The
// simulation in test/sim is where things go wrong.)
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wire/engine.hh"

namespace godwit::wire::testing {

class TestNet;

class TestHost final : public EngineSink {
 public:
  TestHost(TestNet& net, std::string name, std::uint16_t number, Limits limits);

  std::uint64_t seed;  // before the engine, which draws from it at once
  Engine engine;
  std::map<PortId, std::vector<Bytes>> delivered;
  std::vector<Event> events;
  std::uint64_t datagrams_sent = 0;
  const std::string name;
  PeerAddress address;

  std::size_t count(EventKind kind) const;

  void to_port(PortId port, std::span<const BytesView> frames) override;
  void to_path(const PeerAddress& to, const DatagramBatch& batch) override;
  void relay(const PeerAddress& to, BytesView run, std::uint16_t segment_size) override;
  void to_control(const std::string& peer, BytesView message) override;
  void event(const Event& event) override { events.push_back(event); }

 private:
  void send_run(const PeerAddress& to, BytesView run, std::uint16_t segment_size);

  TestNet& net_;
};

class TestNet {
 public:
  explicit TestNet(std::vector<std::string> names, Limits limits = {});

  TestHost& operator[](const std::string& name) { return *hosts_.at(name); }
  Instant now() const { return now_; }
  void session(const std::string& a, const std::string& b, bool up);
  void settle();  // delivers until nothing is on its way; no time passes
  void pass(Nanoseconds time);
  std::uint64_t ticks = 0;
  // Of hosts that are of another fleet than those that are not in here.
  std::map<std::string, std::string> fleets;
  // What `observer` calls `host`.
  std::string known_as(const std::string& observer, const std::string& host) const;
  // Each says where the other receives datagrams.
  bool sessions_tell_addresses = true;
  // Control messages are delivered twice.
  bool doubles = false;
  // So many datagrams of each run arrive, the others are lost.
  std::size_t most_of_run = SIZE_MAX;
  // Messages that version 1 of the protocol did not have at first are lost.
  bool is_previous_version = false;
  // Where a datagram of `size` bytes that `from` sends to an address arrives, and from which
  // address it seems to come; nothing: nowhere. Unset: at the host with the address.
  struct Arrival {
    std::string host;
    PeerAddress seen_from;
  };
  std::function<std::optional<Arrival>(const std::string& from, const PeerAddress& to,
                                       std::size_t size)>
      route;
  // The host whose own address this is.
  std::string owner(const PeerAddress& address) const;

 private:
  friend class TestHost;
  // Nobody will be ticked too late.
  void expect_attended();

  Instant now_{seconds(100)};
  std::map<std::string, std::unique_ptr<TestHost>> hosts_;
  std::vector<std::string> names_;
  std::map<std::pair<std::string, std::string>, bool> up_;
  std::uint64_t sessions_ = 0;
  std::deque<std::function<void()>> queue_;
};

PortId port_id(std::uint8_t number);
WireId wire_id(std::uint8_t number);
// A valid frame of `size` bytes whose content says `number`.
Bytes numbered_frame(std::uint64_t number, std::size_t size = 100);
std::vector<std::uint64_t> numbers(const std::vector<Bytes>& frames);
void send(TestHost& host, const PortId& port, std::uint64_t number, Instant now);

}  // namespace godwit::wire::testing

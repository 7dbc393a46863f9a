#include "wire/engine_testing.hh"

#include <algorithm>

#include "base/check.hh"
#include "base/host_name.hh"
#include "wire/datagram.hh"

namespace godwit::wire::testing {

TestHost::TestHost(TestNet& net, std::string host_name, std::uint16_t number, Limits limits)
    : seed(number * 1000),
      engine(
          host_name, *this, [this] { return seed += 0x9e3779b97f4a7c15ULL; }, limits),
      name(std::move(host_name)),
      net_(net) {
  address.port = number;
}

std::size_t TestHost::count(EventKind kind) const {
  return static_cast<std::size_t>(std::ranges::count(events, kind, &Event::kind));
}

void TestHost::to_port(PortId port, std::span<const BytesView> frames) {
  for (const BytesView& frame : frames) delivered[port].push_back(to_bytes(frame));
}

void TestHost::to_path(const PeerAddress& to, const DatagramBatch& batch) {
  for (const DatagramRun& run : batch.runs()) send_run(to, run.bytes, run.segment_size);
}

void TestHost::relay(const PeerAddress& to, BytesView run, std::uint16_t segment_size) {
  send_run(to, run, segment_size);
}

void TestHost::send_run(const PeerAddress& to, BytesView run, std::uint16_t segment_size) {
  datagrams_sent += (run.size() + segment_size - 1) / segment_size;
  const auto arrival = net_.route ? net_.route(name, to, segment_size)
                                  : std::optional(TestNet::Arrival{net_.owner(to), address});
  if (!arrival || arrival->host.empty()) return;
  if (run.size() / segment_size > net_.most_of_run)
    run = run.first(net_.most_of_run * segment_size);
  net_.queue_.push_back(
      [this, at = *arrival, size = segment_size, bytes = to_bytes(run)]() mutable {
        net_[at.host].engine.datagrams(at.seen_from, bytes, size, net_.now());
      });
}

void TestHost::to_control(const std::string& known_as, BytesView message) {
  const std::string peer(name_in_fleet(known_as));
  if (!net_.up_[std::minmax(name, peer)]) return;
  if (net_.is_previous_version && std::to_integer<int>(message[1]) > 4) return;
  for (int i = 0; i < (net_.doubles ? 2 : 1); ++i) {
    net_.queue_.push_back([this, peer, bytes = to_bytes(message)] {
      net_[peer].engine.control(net_.known_as(peer, name), bytes, net_.now());
    });
  }
}

TestNet::TestNet(std::vector<std::string> names, Limits limits) : names_(std::move(names)) {
  for (std::uint16_t i = 0; i < names_.size(); ++i) {
    hosts_[names_[i]] = std::make_unique<TestHost>(*this, names_[i], i, limits);
  }
}

void TestNet::session(const std::string& a, const std::string& b, bool up) {
  up_[std::minmax(a, b)] = up;
  ++sessions_;
  std::array<std::byte, 32> secret{};
  secret.fill(static_cast<std::byte>(sessions_));
  for (const auto& [self, other] : {std::pair{a, b}, std::pair{b, a}}) {
    TestHost& host = *hosts_.at(self);
    const std::span addresses(&(*this)[other].address, sessions_tell_addresses ? 1 : 0);
    if (up)
      host.engine.session_up(known_as(self, other), secret, self == a, addresses, now_);
    else
      host.engine.session_down(known_as(self, other), now_);
  }
  settle();
}

std::string TestNet::known_as(const std::string& observer, const std::string& host) const {
  const auto fleet = [this](const std::string& name) {
    const auto found = fleets.find(name);
    return found == fleets.end() ? std::string("ours") : found->second;
  };
  return fleet(observer) == fleet(host) ? host : host_of_fleet(host, fleet(host));
}

std::string TestNet::owner(const PeerAddress& address) const {
  for (const auto& [name, host] : hosts_) {
    if (host->address == address) return name;
  }
  return {};
}

void TestNet::settle() {
  expect_attended();
  while (!queue_.empty()) {
    auto task = std::move(queue_.front());
    queue_.pop_front();
    task();
    expect_attended();
  }
}

void TestNet::expect_attended() {
  for (const auto& [name, host] : hosts_) {
    const std::string overlooked = host->engine.overlooked();
    CHECK(overlooked.empty(), "nobody ticks {} in time", overlooked);
  }
}

void TestNet::pass(Nanoseconds time) {
  const Instant end = now_ + time;
  for (;;) {
    settle();
    Instant next = end;
    for (const auto& [name, host] : hosts_) next = std::min(next, host->engine.next_tick());
    now_ = std::max(now_, next);
    for (const auto& [name, host] : hosts_) {
      if (host->engine.next_tick() > now_) continue;
      ++ticks;
      host->engine.tick(now_);
    }
    if (next == end) return settle();
  }
}

PortId port_id(std::uint8_t number) {
  PortId id;
  id.bytes.fill(static_cast<std::byte>(number));
  return id;
}

WireId wire_id(std::uint8_t number) {
  WireId id;
  id.bytes.fill(static_cast<std::byte>(number));
  return id;
}

Bytes numbered_frame(std::uint64_t number, std::size_t size) {
  Bytes frame(size);
  to_big_endian(number, frame.data() + kMinFrameBytes);
  return frame;
}

std::vector<std::uint64_t> numbers(const std::vector<Bytes>& frames) {
  std::vector<std::uint64_t> all;
  for (const Bytes& frame : frames) {
    all.push_back(from_big_endian<std::uint64_t>(frame.data() + kMinFrameBytes));
  }
  return all;
}

void send(TestHost& host, const PortId& port, std::uint64_t number, Instant now) {
  const Bytes frame = numbered_frame(number);
  const BytesView view = frame;
  host.engine.frames_from_port(port, {&view, 1}, now);
}

}  // namespace godwit::wire::testing

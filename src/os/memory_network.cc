#include "os/memory_network.hh"

#include "base/check.hh"

namespace godwit::os {
namespace {

constexpr std::size_t kIpv4Headers = 20 + 8;  // IP and UDP
constexpr std::size_t kIpv6Headers = 40 + 8;
constexpr std::size_t kReceiveBatch = 64;
constexpr std::size_t kInboxLimit = 64 * 1024;  // datagrams; more are lost, as in a full socket

}  // namespace

class MemoryNetwork::Socket final : public DatagramSocket {
 public:
  Socket(MemoryNetwork& network, const Endpoint& at) : network_(network), at_(at) {
    CHECK(network_.sockets_.emplace(at_, this).second, "{} is taken", at_.text());
  }
  ~Socket() override { network_.sockets_.erase(at_); }

  std::size_t send_batch(std::span<const DatagramRun> runs) override {
    for (const DatagramRun& run : runs) {
      CHECK(run.segment_size > 0 && run.bytes.size() <= kMaxRunBytes &&
            run.bytes.size() <= kMaxSegments * run.segment_size);
      for (BytesView rest = run.bytes; !rest.empty();) {
        const auto size = std::min<std::size_t>(run.segment_size, rest.size());
        network_.send(at_, run.to, rest.first(size));
        ++counters_.sent_datagrams;
        counters_.sent_bytes += size;
        rest = rest.subspan(size);
      }
    }
    return runs.size();
  }

  std::span<ReceivedRun> receive_batch() override {
    current_.clear();
    runs_.clear();
    while (!inbox_.empty() && current_.size() < kReceiveBatch) {
      current_.push_back(std::move(inbox_.front()));
      inbox_.pop_front();
    }
    for (Flying& datagram : current_) {
      runs_.push_back({.from = datagram.from,
                       .bytes = datagram.bytes,
                       .segment_size = static_cast<std::uint16_t>(datagram.bytes.size())});
      counters_.received_bytes += datagram.bytes.size();
    }
    counters_.received_runs += runs_.size();
    return runs_;
  }

  Endpoint local() const override { return at_; }
  const DatagramCounters& counters() const override { return counters_; }

  void deliver(Flying&& datagram) {
    if (inbox_.size() < kInboxLimit) inbox_.push_back(std::move(datagram));
  }

 private:
  MemoryNetwork& network_;
  Endpoint at_;
  DatagramCounters counters_;
  std::deque<Flying> inbox_;
  std::vector<Flying> current_;
  std::vector<ReceivedRun> runs_;
};

MemoryNetwork::MemoryNetwork(std::uint64_t seed) : random_(seed) {}
MemoryNetwork::~MemoryNetwork() { CHECK(sockets_.empty(), "a socket outlives its network"); }

std::unique_ptr<DatagramSocket> MemoryNetwork::attach(const Endpoint& at) {
  return std::make_unique<Socket>(*this, at);
}

const MemoryNetwork::Path& MemoryNetwork::path(const Endpoint& from, const Endpoint& to) const {
  const auto found = paths_.find({from, to});
  return found != paths_.end() ? found->second : default_;
}

bool MemoryNetwork::chance(double share) {
  return share > 0.0 && std::uniform_real_distribution<double>(0.0, 1.0)(random_) < share;
}

void MemoryNetwork::send(const Endpoint& from, const Endpoint& to, BytesView datagram) {
  if (filter_ && !filter_(from, to, datagram)) return;
  const Path& path = this->path(from, to);
  const std::size_t headers = to.is_ipv6 ? kIpv6Headers : kIpv4Headers;
  if (!path.up || datagram.size() + headers > path.mtu || chance(path.loss)) return;
  for (int copies = chance(path.doubling) ? 2 : 1; copies > 0; --copies) {
    auto jitter = std::uniform_int_distribution<Nanoseconds::rep>(0, path.jitter.count());
    flying_.emplace(now_ + path.delay + Nanoseconds(jitter(random_)),
                    Flying{from, to, to_bytes(datagram)});
  }
}

void MemoryNetwork::advance(Instant now) {
  CHECK(now >= now_, "time moves forward only");
  now_ = now;
  while (!flying_.empty() && flying_.begin()->first <= now) {
    auto node = flying_.extract(flying_.begin());
    const auto socket = sockets_.find(node.mapped().to);
    if (socket != sockets_.end()) socket->second->deliver(std::move(node.mapped()));
  }
}

std::optional<Instant> MemoryNetwork::next_due() const {
  if (flying_.empty()) return std::nullopt;
  return flying_.begin()->first;
}

}  // namespace godwit::os

#include "lab/guest/udp_service.hh"

#include <algorithm>
#include <chrono>
#include <utility>

#include "lab/guest/sockets.hh"

namespace godwit::lab {
namespace {

// Held packets of a paused vm arrive in one burst: as many as a TAP holds (os/tap.hh), for each of
// which the kernel charges up to 2.3 KiB. The image's init raises udp_mem to this.
constexpr int kReceiveBuffer = 16 << 20;
// What it sends waits for as long as its QEMU, on a busy host, does not look at the device.
constexpr int kSendBuffer = 4 << 20;
// The kernel doubles it, and charges a packet no less.
constexpr unsigned kMostWaiting = 2 * kReceiveBuffer / 512;

std::string list(const std::vector<std::uint64_t>& numbers) {
  std::string out = "[";
  for (const std::uint64_t number : numbers) {
    if (out.size() > 1) out += ",";
    out += std::to_string(number);
  }
  return out + "]";
}

std::uint64_t now_ns() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

}  // namespace

PacketBatch::PacketBatch() {
  for (std::size_t i = 0; i < kSize; ++i) {
    messages_[i].msg_hdr = {.msg_name = &addresses_[i],
                            .msg_namelen = sizeof addresses_[i],
                            .msg_iov = &vectors_[i],
                            .msg_iovlen = 1,
                            .msg_control = nullptr,
                            .msg_controllen = 0,
                            .msg_flags = 0};
  }
}

std::size_t PacketBatch::receive(int fd) {
  for (std::size_t i = 0; i < kSize; ++i) vectors_[i] = {buffers_[i].data(), buffers_[i].size()};
  const int count = ::recvmmsg(fd, messages_.data(), kSize, MSG_DONTWAIT, nullptr);
  count_ = static_cast<std::size_t>(std::max(count, 0));
  return count_;
}

BytesView PacketBatch::packet(std::size_t i) const {
  return BytesView(buffers_[i]).first(messages_[i].msg_len);
}

void PacketBatch::add(const sockaddr_in6& to, const Packet& packet) {
  auto& buffer = buffers_[count_];
  std::ranges::copy(encode(packet), buffer.begin());
  vectors_[count_] = {buffer.data(), kPacketBytes};
  addresses_[count_++] = to;
}

std::size_t PacketBatch::send(int fd) {
  std::size_t sent = 0;
  while (sent < count_) {
    const int taken =
        ::sendmmsg(fd, messages_.data() + sent, static_cast<unsigned>(count_ - sent), MSG_NOSIGNAL);
    if (taken <= 0) break;
    sent += static_cast<std::size_t>(taken);
  }
  return std::exchange(count_, 0) - sent;
}

UdpService::UdpService(std::uint16_t port) : fd_(bind_or_exit(SOCK_DGRAM, port)) {
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &kSendBuffer, sizeof kSendBuffer);
}

UdpService::Client* UdpService::find_or_make(std::uint64_t id) {
  const auto found = clients_.find(id);
  if (found != clients_.end()) return &found->second;
  if (clients_.size() >= kMaxClients) {
    const auto oldest = std::ranges::min_element(
        clients_, {}, [](const auto& entry) { return entry.second.heard_at_tick; });
    if (counter_.value() - oldest->second.heard_at_tick < kClientLeaseTicks) return nullptr;
    clients_.erase(oldest);
  }
  return &clients_[id];
}

void UdpService::catch_up() {
  for (unsigned taken = 0; taken < kMostWaiting && receive(); taken += kMostReceivedAtOnce) {
  }
}

bool UdpService::receive() {
  const std::size_t count = incoming_.receive(fd_);
  for (std::size_t i = 0; i < count; ++i) {
    const auto packet = decode_packet(incoming_.packet(i));
    if (!packet || packet->kind != PacketKind::probe) continue;
    Client* client = find_or_make(packet->client);
    if (client == nullptr) continue;
    client->address = incoming_.address(i);
    client->per_second = std::min(packet->wanted_per_second, kMaxPacketsPerSecond);
    client->heard_at_tick = counter_.value();
    client->log.arrived(packet->sequence);
    Packet echo = *packet;
    echo.kind = PacketKind::echo;
    echo.counter = counter_.value();
    echo.left_ns = left_ns_;
    echo.index = client->echoes_sent++;
    send(*client, echo);
  }
  return count > 0;
}

void UdpService::tick() {
  counter_.increment();
  for (auto& [id, client] : clients_) {
    if (counter_.value() - client.heard_at_tick > kClientLeaseTicks) client.per_second = 0;
    client.credit += client.per_second;
    for (; client.credit >= kTicksPerSecond; client.credit -= kTicksPerSecond) {
      send(client, {.kind = PacketKind::stream,
                    .wanted_per_second = client.per_second,
                    .client = id,
                    .sequence = client.stream_sent++,
                    .counter = counter_.value(),
                    .left_ns = left_ns_,
                    .index = 0});
    }
  }
}

void UdpService::send(const Client& client, const Packet& packet) {
  if (outgoing_.is_full()) flush();
  outgoing_.add(client.address, packet);
}

void UdpService::flush() {
  if (outgoing_.is_empty()) return;
  send_failures_ += outgoing_.send(fd_);
  left_ns_ = now_ns();
}

std::string UdpService::report(std::uint64_t id, std::uint64_t from, std::uint64_t limit) const {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return "null";
  const Client& client = found->second;
  const auto field = [](const char* name, std::uint64_t value) {
    return "\"" + std::string(name) + "\":" + std::to_string(value) + ",";
  };
  return "{" + field("received", client.log.received()) +
         field("duplicates", client.log.duplicates()) +
         field("reorderings", client.log.reorderings()) + field("end", client.log.end()) +
         field("stream_sent", client.stream_sent) + field("echoes_sent", client.echoes_sent) +
         field("send_failures", send_failures_) +
         "\"missing\":" + list(client.log.missing(from, limit)) +
         ",\"duplicated\":" + list(client.log.duplicated()) +
         ",\"reordered\":" + list(client.log.reordered()) + "}";
}

}  // namespace godwit::lab

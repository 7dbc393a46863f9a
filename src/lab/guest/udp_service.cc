#include "lab/guest/udp_service.hh"

#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "lab/guest/sockets.hh"

namespace godwit::lab {
namespace {

constexpr int kBufferBytes = 4 << 20;  // held packets of a paused vm arrive in one burst

std::string list(const std::vector<std::uint64_t>& numbers) {
  std::string out = "[";
  for (const std::uint64_t number : numbers) {
    if (out.size() > 1) out += ",";
    out += std::to_string(number);
  }
  return out + "]";
}

}  // namespace

UdpService::UdpService(std::uint16_t port) : fd_(bind_or_exit(SOCK_DGRAM, port)) {
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &kBufferBytes, sizeof kBufferBytes);
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

void UdpService::receive() {
  std::array<std::byte, 2048> buffer;
  for (unsigned turn = 0; turn < kMostReceivedAtOnce; ++turn) {
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t count = ::recvfrom(fd_, buffer.data(), buffer.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &length);
    if (count < 0) return;
    const auto packet = decode_packet(BytesView(buffer).first(static_cast<std::size_t>(count)));
    if (!packet || packet->kind != PacketKind::probe) continue;
    Client* client = find_or_make(packet->client);
    if (client == nullptr) continue;
    client->address = from;
    client->per_second = std::min(packet->wanted_per_second, kMaxPacketsPerSecond);
    client->heard_at_tick = counter_.value();
    client->log.arrived(packet->sequence);
    Packet echo = *packet;
    echo.kind = PacketKind::echo;
    echo.counter = counter_.value();
    echo.index = client->echoes_sent++;
    send(*client, echo);
  }
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
                    .sent_ns = 0,
                    .index = 0});
    }
  }
}

void UdpService::send(Client& client, const Packet& packet) {
  std::array<std::byte, kPacketBytes> buffer{};
  std::ranges::copy(encode(packet), buffer.begin());
  const ssize_t sent =
      ::sendto(fd_, buffer.data(), buffer.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&client.address), sizeof client.address);
  if (sent < 0) ++client.send_failures;
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
         field("send_failures", client.send_failures) +
         "\"missing\":" + list(client.log.missing(from, limit)) +
         ",\"duplicated\":" + list(client.log.duplicated()) +
         ",\"reordered\":" + list(client.log.reordered()) + "}";
}

}  // namespace godwit::lab

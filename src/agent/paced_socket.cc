#include "agent/paced_socket.hh"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include "os/socket.hh"
#include "os/tcp.hh"
#include "session/tls_stream.hh"

namespace godwit::agent {
namespace {

// Little unsent data in the kernel keeps the last pages of a move from queueing behind what was
// read long ago: 512 KiB is 10 ms at 400 Mbit/s.
constexpr ByteCount kNotSent{512 << 10};
// Twice what a transfer may have unacknowledged, as the kernel counts its structures: its own limit
// of 4 MiB by default is less than two round trips of 200 Mbit/s at 100 ms.
constexpr ByteCount kSendBuffer{64 << 20};
constexpr Nanoseconds kInterval = milliseconds(5);
constexpr const char* kCongestionControl = "bbr";
constexpr std::size_t kLanesWithoutBbr = 8;
constexpr Nanoseconds kSilence = seconds(1);

const os::Fd* socket_of(os::ByteStream& stream) {
  if (auto* tls = dynamic_cast<session::TlsStream*>(&stream)) return socket_of(tls->lower());
  auto* socket = dynamic_cast<os::SocketStream*>(&stream);
  return socket == nullptr ? nullptr : &socket->fd();
}

}  // namespace

std::size_t lanes_to_fill_a_path() {
  const os::Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  return os::set_congestion_control(probe, kCongestionControl) ? 1 : kLanesWithoutBbr;
}

PacedSocket::PacedSocket(os::Loop& loop, os::ByteStream& stream, std::size_t of)
    : loop_(loop), socket_(socket_of(stream)) {
  if (socket_ == nullptr || os::congestion_control(*socket_).empty()) {
    socket_ = nullptr;
    return;
  }
  if (!os::set_congestion_control(*socket_, kCongestionControl)) {
    spdlog::info("this kernel has no BBR: lanes use its default congestion control");
  }
  os::set_send_buffer(*socket_, kSendBuffer);
  os::set_not_sent_low_water(*socket_, {kNotSent.bytes / of});
  wrote();
}

void PacedSocket::wrote() {
  if (socket_ == nullptr) return;
  wrote_at_ = loop_.now();
  if (!pacing_) pace();
}

void PacedSocket::pace() {
  pacing_ = loop_.now() - wrote_at_ < kSilence;
  if (!pacing_) return;
  const os::TcpStatus status = os::tcp_status(*socket_);
  unacknowledged_.see(loop_.now(), status.unacknowledged);
  os::set_pacing_rate(*socket_, pacer_.update({.at = loop_.now(),
                                               .rtt = status.min_rtt,
                                               .smoothed_rtt = status.rtt,
                                               .delivered = status.delivery_rate,
                                               .acknowledged = status.acknowledged,
                                               .starting_up = status.starting_up,
                                               .waiting = status.unsent.bytes > 0}));
  timer_ = loop_.after(kInterval, [this] { pace(); });
}

}  // namespace godwit::agent

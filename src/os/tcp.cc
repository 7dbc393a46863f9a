#include "os/tcp.hh"

#include <linux/inet_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <limits>

namespace godwit::os {
namespace {

constexpr std::size_t kNameLimit = 16;  // TCP_CA_NAME_MAX of the kernel

template <class T>
bool set(const Fd& fd, int level, int option, T value) {
  return ::setsockopt(fd.number(), level, option, &value, sizeof value) == 0;
}

}  // namespace

bool set_congestion_control(const Fd& fd, const std::string& name) {
  return ::setsockopt(fd.number(), IPPROTO_TCP, TCP_CONGESTION, name.data(),
                      static_cast<socklen_t>(name.size())) == 0;
}

std::string congestion_control(const Fd& fd) {
  std::array<char, kNameLimit + 1> name{};
  socklen_t size = kNameLimit;
  if (::getsockopt(fd.number(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &size) != 0) return {};
  return name.data();
}

bool set_pacing_rate(const Fd& fd, BitRate rate) {
  const std::uint64_t bytes = rate.bits_per_second / 8;
  return set(fd, SOL_SOCKET, SO_MAX_PACING_RATE,
             bytes == 0 ? std::numeric_limits<std::uint64_t>::max() : bytes);
}

bool set_send_buffer(const Fd& fd, ByteCount bytes) {
  const int size = static_cast<int>(bytes.bytes);
  return set(fd, SOL_SOCKET, SO_SNDBUFFORCE, size) || set(fd, SOL_SOCKET, SO_SNDBUF, size);
}

bool set_not_sent_low_water(const Fd& fd, ByteCount bytes) {
  return set(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, static_cast<std::uint32_t>(bytes.bytes));
}

bool set_user_timeout(const Fd& fd, Nanoseconds limit) {
  return set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT,
             static_cast<unsigned>(duration_cast<milliseconds>(limit).count()));
}

namespace {

// Gains are 1/256: 739 in BBR's start-up, at most 320 afterwards (tcp_bbr.c). Only BBR answers with
// this many bytes.
constexpr std::uint32_t kStartUpGain = 512;

bool bbr_starts_up(const Fd& fd) {
  tcp_bbr_info info{};
  socklen_t size = sizeof info;
  return ::getsockopt(fd.number(), IPPROTO_TCP, TCP_CC_INFO, &info, &size) == 0 &&
         size == sizeof info && info.bbr_pacing_gain > kStartUpGain;
}

}  // namespace

TcpStatus tcp_status(const Fd& fd) {
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd.number(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return {};
  using std::chrono::microseconds;
  return {.rtt = microseconds(info.tcpi_rtt),
          .min_rtt = microseconds(info.tcpi_min_rtt),
          .unsent = {info.tcpi_notsent_bytes},
          .unacknowledged = {std::uint64_t{info.tcpi_unacked} * info.tcpi_snd_mss},
          .acknowledged = {info.tcpi_bytes_acked},
          .retransmits = info.tcpi_total_retrans,
          .delivery_rate = {info.tcpi_delivery_rate * 8},
          .starting_up = bbr_starts_up(fd)};
}

}  // namespace godwit::os

#include "lab/probe_traffic.hh"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

namespace godwit::lab {
namespace {

constexpr int kReceiveBuffer = 8 << 20;  // what was held during a pause arrives at once
// After a stall of our own no more than this is made up for at once.
constexpr int kMostAtOnce = 50;
constexpr std::uint64_t kMostAtOnceOfPace = 16;
constexpr std::uint64_t kMostUnanswered = 1 << 20;  // then the connection only waits

UnixTime timestamp_of(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SO_TIMESTAMPNS) {
      timespec at{};
      std::memcpy(&at, CMSG_DATA(part), sizeof at);
      return seconds(at.tv_sec) + std::chrono::nanoseconds(at.tv_nsec);
    }
  }
  return unix_now();
}

}  // namespace

UnixTime unix_now() { return std::chrono::system_clock::now().time_since_epoch(); }

ProbePackets::ProbePackets(os::Loop& loop, const os::Endpoint& guest, std::uint16_t per_second,
                           std::uint64_t client, ProbeRecord& record)
    : loop_(loop), per_second_(per_second), client_(client), record_(record), next_(loop.now()) {
  fd_.reset(::socket(guest.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_storage to{};
  const socklen_t length = guest.to_sockaddr(to, guest.family());
  if (!fd_ || ::connect(fd_.number(), reinterpret_cast<const sockaddr*>(&to), length) != 0) {
    fail_setup("{}", errno_text("UDP to " + guest.text()));
  }
  const int one = 1;
  ::setsockopt(fd_.number(), SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one);
  ::setsockopt(fd_.number(), SOL_SOCKET, SO_RCVBUF, &kReceiveBuffer, sizeof kReceiveBuffer);
  ::setsockopt(fd_.number(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBuffer, sizeof kReceiveBuffer);
  watch_ = loop_.watch(fd_, EPOLLIN, [this](std::uint32_t) { receive(); });
  tick();
}

void ProbePackets::stop() { timer_.reset(); }

void ProbePackets::tick() {
  const Nanoseconds interval = Nanoseconds(seconds(1)) / std::max<int>(per_second_, 1);
  const Instant now = loop_.now();
  next_ = std::max(next_, now - kMostAtOnce * interval);
  // A number is used only by a packet that left.
  for (; next_ <= now && record_.sent_count() < kMaxSequence; next_ += interval) {
    if (!send_one()) break;
  }
  timer_ = loop_.at(std::max(next_, now + interval / 4), [this] { tick(); });
}

bool ProbePackets::send_one() {
  std::array<std::byte, kPacketBytes> buffer{};
  const UnixTime now = unix_now();
  std::ranges::copy(encode({.kind = PacketKind::probe,
                            .wanted_per_second = per_second_,
                            .client = client_,
                            .sequence = record_.sent_count(),
                            .counter = 0,
                            .left_ns = 0,
                            .index = 0}),
                    buffer.begin());
  if (::send(fd_.number(), buffer.data(), buffer.size(), MSG_NOSIGNAL) < 0) return false;
  record_.sent(now);
  return true;
}

void ProbePackets::receive() {
  std::array<std::byte, kMaxPacketBytes> buffer;
  alignas(cmsghdr) std::array<char, 128> control;
  for (;;) {
    iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t count = ::recvmsg(fd_.number(), &message, 0);
    if (count < 0) return;  // also a queued ICMP error: the packet counts as lost
    const auto packet = decode_packet(BytesView(buffer).first(static_cast<std::size_t>(count)));
    if (!packet || packet->client != client_ || packet->kind == PacketKind::probe) continue;
    record_.received(timestamp_of(message), *packet);
  }
}

ProbeConnection::ProbeConnection(os::Loop& loop, const os::Endpoint& guest, std::uint64_t number,
                                 const Pace& pace, ProbeRecord& record)
    : loop_(loop),
      number_(number),
      pace_(pace),
      record_(record),
      stream_(os::tcp_connect(loop, guest)) {
  stream_->start({.readable = [this] { read(); },
                  .writable = {},
                  .closed =
                      [this](std::string) {
                        closed_ = true;
                        timer_.reset();
                        record_.tcp_reset(unix_now());
                      }});
  tick();
}

void ProbeConnection::tick() {
  timer_ = loop_.after(pace_.every, [this] { tick(); });
  if (wanted_ - received_ < kMostUnanswered) wanted_ += pace_.bytes;
  std::vector<std::byte> chunk(std::min(kMostAtOnceOfPace * pace_.bytes, wanted_ - sent_));
  const std::size_t count = chunk.size();
  for (std::size_t i = 0; i < count; ++i) chunk[i] = pattern_byte(number_, sent_ + i);
  const std::size_t taken = stream_->write(BytesView(chunk).first(count));
  sent_ += taken;
  if (taken > 0 && !waiting_since_) waiting_since_ = unix_now();
}

void ProbeConnection::read() {
  std::array<std::byte, 65536> chunk;
  while (const std::size_t count = stream_->read(chunk)) {
    const UnixTime now = unix_now();
    for (std::size_t i = 0; i < count; ++i) {
      if (chunk[i] == pattern_byte(number_, received_ + i)) continue;
      record_.tcp_mismatch(now);
      break;
    }
    received_ += count;
    if (waiting_since_) record_.tcp_progress(*waiting_since_, now);
    waiting_since_.reset();
    if (received_ < sent_) waiting_since_ = now;
  }
}

ProbeControl::ProbeControl(os::Loop& loop, const os::Endpoint& guest)
    : stream_(os::tcp_connect(loop, guest)) {
  stream_->start({.readable = [this] { read(); },
                  .writable = [this] { output_.erase(0, stream_->write(as_bytes(output_))); },
                  .closed =
                      [this](std::string) {
                        closed_ = true;
                        fail_all();
                      }});
}

void ProbeControl::ask(std::string line, Answer answer) {
  if (closed_) return answer(std::nullopt);
  waiting_.push_back(std::move(answer));
  output_ += line + "\n";
  output_.erase(0, stream_->write(as_bytes(output_)));
}

void ProbeControl::read() {
  std::array<std::byte, 65536> chunk;
  while (const std::size_t count = stream_->read(chunk)) {
    input_ += as_text(BytesView(chunk).first(count));
  }
  for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos && !waiting_.empty();) {
    Answer answer = std::move(waiting_.front());
    waiting_.pop_front();
    const auto report = parse_guest_report(std::string_view(input_).substr(0, end));
    input_.erase(0, end + 1);
    answer(report);
  }
}

void ProbeControl::fail_all() {
  while (!waiting_.empty()) {
    Answer answer = std::move(waiting_.front());
    waiting_.pop_front();
    answer(std::nullopt);
  }
}

}  // namespace godwit::lab

#include "os/udp.hh"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "base/check.hh"

namespace godwit::os {
namespace {

constexpr std::size_t kSendSlots = 64;     // runs per sendmmsg
constexpr std::size_t kReceiveSlots = 16;  // runs per recvmmsg: 1 MiB of buffers
constexpr std::size_t kReceiveBytes = 64 * 1024;

template <class T>
bool set(const Fd& fd, int level, int option, T value) {
  return ::setsockopt(fd.number(), level, option, &value, sizeof value) == 0;
}

void set_buffer(const Fd& fd, int forced, int polite, ByteCount size) {
  const auto bytes = static_cast<int>(size.bytes);
  if (!set(fd, SOL_SOCKET, forced, bytes)) set(fd, SOL_SOCKET, polite, bytes);
}

std::size_t segments_of(const DatagramRun& run) {
  return (run.bytes.size() + run.segment_size - 1) / run.segment_size;
}

Fd bound_socket(const Endpoint& at) {
  Fd fd(::socket(at.family(), SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd) return fd;
  if (at.is_ipv6 && at.is_any()) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  sockaddr_storage raw;
  const socklen_t size = at.to_sockaddr(raw, at.family());
  if (::bind(fd.number(), reinterpret_cast<sockaddr*>(&raw), size) != 0) {
    const int error = errno;
    fd.reset();
    errno = error;
  }
  return fd;
}

void forbid_fragments(const Fd& fd, int family) {
  bool done = set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  if (family == AF_INET6) {
    done = set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) &&
           set(fd, IPPROTO_IPV6, IPV6_DONTFRAG, 1);
  }
  if (!done) fail_setup("{}", errno_text("forbid fragments of a UDP socket"));
}

union SegmentControl {
  cmsghdr header;  // for its alignment
  std::array<char, CMSG_SPACE(sizeof(std::uint16_t))> bytes;
};
// What the kernel says of a run: the size it was joined from (UDP_GRO), and how much it dropped
// before it, since the socket was made (SO_RXQ_OVFL, socket(7)).
union ReceiveControl {
  cmsghdr header;
  std::array<char, CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(std::uint32_t))> bytes;
};
struct RunNotes {
  std::uint16_t joined = 0;  // 0: a single datagram
  std::optional<std::uint32_t> overflows;
};

void set_segment_size(msghdr& message, SegmentControl& control, std::uint16_t size) {
  message.msg_control = &control;
  message.msg_controllen = sizeof control.bytes;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_UDP;
  header->cmsg_type = UDP_SEGMENT;
  header->cmsg_len = CMSG_LEN(sizeof size);
  std::memcpy(CMSG_DATA(header), &size, sizeof size);
}

RunNotes notes_of(msghdr& message) {
  RunNotes notes;
  for (cmsghdr* at = CMSG_FIRSTHDR(&message); at != nullptr; at = CMSG_NXTHDR(&message, at)) {
    if (at->cmsg_level == SOL_UDP && at->cmsg_type == UDP_GRO) {
      int size = 0;
      std::memcpy(&size, CMSG_DATA(at), sizeof size);
      notes.joined = static_cast<std::uint16_t>(size);
    } else if (at->cmsg_level == SOL_SOCKET && at->cmsg_type == SO_RXQ_OVFL) {
      std::memcpy(&notes.overflows.emplace(), CMSG_DATA(at), sizeof(std::uint32_t));
    }
  }
  return notes;
}

}  // namespace

struct UdpSocket::SendSlots {
  std::array<mmsghdr, kSendSlots> messages;
  std::array<iovec, kSendSlots> parts;
  std::array<sockaddr_storage, kSendSlots> addresses;
  std::array<SegmentControl, kSendSlots> controls;

  // One message: a whole run, which the kernel segments, or a single datagram.
  void put(std::size_t slot, const Endpoint& to, BytesView bytes, std::uint16_t segment_size,
           int family) {
    parts[slot] = {.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
    msghdr& message = messages[slot].msg_hdr;
    message = {};
    message.msg_name = &addresses[slot];
    message.msg_namelen = to.to_sockaddr(addresses[slot], family);
    message.msg_iov = &parts[slot];
    message.msg_iovlen = 1;
    if (bytes.size() > segment_size) set_segment_size(message, controls[slot], segment_size);
  }
};

struct UdpSocket::ReceiveSlots {
  ReceiveSlots() : buffers(kReceiveSlots * kReceiveBytes) {}

  void prepare() {
    for (std::size_t slot = 0; slot < kReceiveSlots; ++slot) {
      parts[slot] = {.iov_base = &buffers[slot * kReceiveBytes], .iov_len = kReceiveBytes};
      msghdr& message = messages[slot].msg_hdr;
      message = {};
      message.msg_name = &addresses[slot];
      message.msg_namelen = sizeof addresses[slot];
      message.msg_iov = &parts[slot];
      message.msg_iovlen = 1;
      message.msg_control = &controls[slot];
      message.msg_controllen = sizeof controls[slot].bytes;
    }
  }

  Bytes buffers;
  std::array<mmsghdr, kReceiveSlots> messages;
  std::array<iovec, kReceiveSlots> parts;
  std::array<sockaddr_storage, kReceiveSlots> addresses;
  std::array<ReceiveControl, kReceiveSlots> controls;
  std::array<ReceivedRun, kReceiveSlots> runs;
};

UdpSocket::UdpSocket(Fd fd, int family, const Options& options)
    : fd_(std::move(fd)),
      family_(family),
      options_(options),
      segmentation_(options.segmentation),
      out_(std::make_unique<SendSlots>()),
      in_(std::make_unique<ReceiveSlots>()) {
  set_buffer(fd_, SO_RCVBUFFORCE, SO_RCVBUF, options.receive_buffer);
  set_buffer(fd_, SO_SNDBUFFORCE, SO_SNDBUF, options.send_buffer);
  forbid_fragments(fd_, family_);
  // Absent before Linux 4.18 and 5.0: then all goes datagram by datagram.
  segmentation_ = segmentation_ && set(fd_, SOL_UDP, UDP_SEGMENT, 0);
  if (options.segmentation) set(fd_, SOL_UDP, UDP_GRO, 1);
  set(fd_, SOL_SOCKET, SO_RXQ_OVFL, 1);
  sockaddr_storage raw{};
  socklen_t size = sizeof raw;
  CHECK(::getsockname(fd_.number(), reinterpret_cast<sockaddr*>(&raw), &size) == 0);
  local_ = Endpoint::from_sockaddr(raw).value_or(Endpoint{});
}

UdpSocket::~UdpSocket() = default;

std::unique_ptr<UdpSocket> UdpSocket::bind(const Endpoint& at, const Options& options) {
  int family = at.family();
  Fd fd = bound_socket(at);
  if (!fd && at.is_ipv6 && at.is_any() && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
    fd = bound_socket(Endpoint::any_ipv4(at.port));
    family = AF_INET;
  }
  if (!fd) fail_setup("{}", errno_text(fmt::format("bind udp {}", at.text())));
  return std::unique_ptr<UdpSocket>(new UdpSocket(std::move(fd), family, options));
}

std::unique_ptr<UdpSocket> UdpSocket::for_another_thread() const {
  Fd fd(::fcntl(fd_.number(), F_DUPFD_CLOEXEC, 0));
  if (!fd) fail_setup("{}", errno_text("duplicate a UDP socket"));
  return std::unique_ptr<UdpSocket>(new UdpSocket(std::move(fd), family_, options_));
}

// What an errno of sending means: the message is lost and counted (kSent), the buffer is full, or
// it is worth another try.
UdpSocket::Outcome UdpSocket::after_error(int error, std::size_t segments) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
      return Outcome::kFull;
    case EINTR:
      return Outcome::kRetry;
    case EIO:
    case EOPNOTSUPP:
      if (segments > 1 && segmentation_) {
        segmentation_ = false;
        return Outcome::kRetry;
      }
      ++counters_.unreachable;
      return Outcome::kSent;
    case EMSGSIZE:
      ++counters_.too_big;
      return Outcome::kSent;
    default:  // no route, no neighbour, a firewall
      ++counters_.unreachable;
      return Outcome::kSent;
  }
}

std::size_t UdpSocket::send_batch(std::span<const DatagramRun> runs) {
  if (!flush()) return 0;
  std::size_t taken = 0;
  while (taken < runs.size()) {
    const auto rest = runs.subspan(taken);
    const DatagramRun& first = rest.front();
    CHECK(!first.bytes.empty() && first.segment_size > 0);
    if (!reachable(first)) {
      ++counters_.unreachable;
      ++taken;
      continue;
    }
    const std::size_t more = segmentation_ ? send_segmented(rest) : send_singly(first);
    taken += more;
    if (more == 0 || !left_over_.empty()) break;  // full, maybe in the middle of a run taken
  }
  return taken;
}

// One sendmmsg of whole runs; 0 when the buffer is full.
std::size_t UdpSocket::send_segmented(std::span<const DatagramRun> runs) {
  std::size_t count = 0;
  while (count < std::min(runs.size(), kSendSlots) && reachable(runs[count])) {
    const DatagramRun& run = runs[count];
    CHECK(run.bytes.size() <= kMaxRunBytes && segments_of(run) <= kMaxSegments, "{} bytes by {}",
          run.bytes.size(), run.segment_size);
    out_->put(count++, run.to, run.bytes, run.segment_size, family_);
  }
  for (;;) {
    const int sent =
        ::sendmmsg(fd_.number(), out_->messages.data(), static_cast<unsigned>(count), 0);
    if (sent > 0) {
      for (const DatagramRun& run : runs.first(static_cast<std::size_t>(sent))) {
        counters_.sent_datagrams += segments_of(run);
        counters_.sent_bytes += run.bytes.size();
      }
      return static_cast<std::size_t>(sent);
    }
    // Older kernels say EINVAL for a segment beyond the MTU, but also for other things: ask again
    // without segments.
    if (errno == EINVAL || errno == EMSGSIZE) return send_singly(runs.front());
    switch (after_error(errno, segments_of(runs.front()))) {
      case Outcome::kSent:
        return 1;
      case Outcome::kFull:
        return 0;
      case Outcome::kRetry:
        if (!segmentation_) return send_singly(runs.front());
    }
  }
}

// All datagrams of one run, by sendmmsg without segmentation. 1 when it is done with; 0 when the
// buffer is full before the first.
std::size_t UdpSocket::send_singly(const DatagramRun& run) {
  BytesView rest = run.bytes;
  while (!rest.empty()) {
    std::size_t count = 0;
    for (BytesView next = rest; !next.empty() && count < kSendSlots; ++count) {
      const auto size = std::min<std::size_t>(run.segment_size, next.size());
      out_->put(count, run.to, next.first(size), run.segment_size, family_);
      next = next.subspan(size);
    }
    const int sent =
        ::sendmmsg(fd_.number(), out_->messages.data(), static_cast<unsigned>(count), 0);
    if (sent > 0) {
      const auto bytes =
          std::min<std::size_t>(rest.size(), static_cast<std::size_t>(sent) * run.segment_size);
      counters_.sent_datagrams += static_cast<std::uint64_t>(sent);
      counters_.sent_bytes += bytes;
      rest = rest.subspan(bytes);
      continue;
    }
    switch (after_error(errno, 1)) {
      case Outcome::kSent:
        return 1;  // the others would fare no better
      case Outcome::kFull:
        if (rest.size() == run.bytes.size()) return 0;
        left_over_ = to_bytes(rest);
        left_over_to_ = run.to;
        left_over_segment_ = run.segment_size;
        return 1;
      case Outcome::kRetry:
        break;
    }
  }
  return 1;
}

bool UdpSocket::flush() {
  if (left_over_.empty()) return true;
  const Bytes bytes = std::exchange(left_over_, {});
  if (send_singly({left_over_to_, bytes, left_over_segment_}) == 0) left_over_ = bytes;
  return left_over_.empty();
}

std::span<ReceivedRun> UdpSocket::receive_batch() {
  in_->prepare();
  const int got = ::recvmmsg(fd_.number(), in_->messages.data(), kReceiveSlots, 0, nullptr);
  std::size_t count = 0;
  for (int i = 0; i < got; ++i) {  // none when got < 0: nothing there, or an old ICMP error
    const auto slot = static_cast<std::size_t>(i);
    const std::size_t size = in_->messages[slot].msg_len;
    const auto from = Endpoint::from_sockaddr(in_->addresses[slot]);
    if (!from || size == 0) continue;
    const auto [joined, overflows] = notes_of(in_->messages[slot].msg_hdr);
    if (overflows) note_overflow(*overflows);
    in_->runs[count++] = {.from = *from,
                          .bytes = MutableBytes(in_->buffers).subspan(slot * kReceiveBytes, size),
                          .segment_size = joined != 0 ? joined : static_cast<std::uint16_t>(size)};
    counters_.received_bytes += size;
  }
  counters_.received_runs += count;
  return std::span(in_->runs).first(count);
}

// The kernel counts in 32 bits.
void UdpSocket::note_overflow(std::uint32_t kernel_count) {
  counters_.overflowed += kernel_count - std::exchange(kernel_overflows_, kernel_count);
}

}  // namespace godwit::os

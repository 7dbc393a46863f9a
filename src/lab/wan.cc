#include "lab/wan.hh"

#include <sys/epoll.h>
#include <unistd.h>

#include "base/check.hh"
#include "lab/address_plan.hh"
#include "lab/too_big.hh"
#include "os/endpoint.hh"

namespace godwit::lab {
namespace {

// Frames read from one TAP before others get their turn.
constexpr int kReadBurst = 64;
// A wake-up costs about this much: closer than that, waiting by looking at the clock is as cheap.
// Frames are read and released in groups of this time: a fifth of the delay error that is allowed.
constexpr Nanoseconds kGather = std::chrono::microseconds(200);
constexpr std::size_t kLargestFrame = 65536 + kEthernetHeader;

constexpr std::uint16_t kTypeArp = 0x0806;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
constexpr std::uint8_t kHopByHop = 0;
constexpr std::uint8_t kIcmp6 = 58;

// ARP, neighbour discovery (ICMPv6 133 to 137, RFC 4861 4) and multicast listener reports (which
// carry a router alert in a hop-by-hop header and go to ff02::/16, RFC 3810 5).
bool is_link_local_talk(BytesView frame) {
  Reader reader(frame);
  reader.bytes(kEthernetHeader - 2);
  const std::uint16_t type = reader.u16();
  if (type != kTypeIpv6) return reader.ok() && type == kTypeArp;
  reader.bytes(6);
  const std::uint8_t next_header = reader.u8();
  reader.bytes(17);
  const bool to_the_link = reader.u16() == 0xff02;
  reader.bytes(14);
  const std::uint8_t kind = reader.u8();
  if (!reader.ok()) return false;
  if (next_header == kHopByHop) return to_the_link;
  return next_header == kIcmp6 && kind >= 133 && kind <= 137;
}

template <std::size_t N>
std::array<std::byte, N> raw_address(const std::string& text) {
  const auto endpoint = os::Endpoint::parse(text, 0);
  CHECK(endpoint.has_value(), "{}", text);
  std::array<std::byte, N> raw;
  std::memcpy(raw.data(), endpoint->address.data(), N);
  return raw;
}

}  // namespace

Wan::Wan(os::Loop& loop, const LabConfig& lab, std::vector<std::array<os::Fd, 2>> taps)
    : loop_(loop), buffer_(kLargestFrame) {
  CHECK(taps.size() == lab.links.size());
  spans_.resize(taps.size());
  for (std::size_t i = 0; i < taps.size(); ++i) {
    Span& span = spans_[i];
    span.link = lab.links[i];
    for (std::size_t end = 0; end < 2; ++end) {
      const std::uint64_t seed = lab.seed * 1'000'003 + i * 2 + end;
      span.ends[end].reset(new End{.tap = std::move(taps[i][end]),
                                   .out = Direction(span.link.quality[end], seed),
                                   .watch = {}});
      span.ends[end]->watch =
          loop.watch(span.ends[end]->tap, EPOLLIN, [this, i, end](auto) { readable(i, end); });
      const Address address = link_address(lab, i, 1 - end);
      span.far4[end] = raw_address<4>(address.ipv4);
      span.far6[end] = raw_address<16>(address.ipv6);
    }
    for (const ScriptedCut& scripted : span.link.cuts) {
      span.script.push_back(
          loop.after(scripted.at, [this, i, scripted] { cut(spans_[i], scripted.duration); }));
    }
  }
}

void Wan::readable(std::size_t link, std::size_t end) {
  const os::Fd& tap = spans_[link].ends[end]->tap;
  for (int i = 0; i < kReadBurst; ++i) {
    const ssize_t got = ::read(tap.number(), buffer_.data(), buffer_.size());
    if (got <= 0) break;
    accept(link, end, BytesView(buffer_).first(static_cast<std::size_t>(got)));
  }
  spans_[link].ends[end]->watch.set_events(0);
  if (!read_timer_) read_timer_ = loop_.after(kGather, [this] { watch_all(); });
  arm();
}

void Wan::watch_all() {
  read_timer_.reset();
  for (Span& span : spans_) {
    for (const auto& end : span.ends) end->watch.set_events(EPOLLIN);
  }
}

void Wan::accept(std::size_t link, std::size_t end, BytesView frame) {
  Span& span = spans_[link];
  Direction& out = span.ends[end]->out;
  if (is_link_local_talk(frame)) {
    write_to(*span.ends[1 - end], frame);
    return;
  }
  const auto dropped = out.offer(frame, loop_.now());
  if (dropped != DropCause::mtu || out.quality().mtu_silent || !out.is_up()) return;
  const Bytes reply = too_big_reply(frame, out.quality().mtu, span.far4[end], span.far6[end]);
  if (!reply.empty()) write_to(*span.ends[end], reply);
}

void Wan::write_to(End& end, BytesView frame) {
  if (::write(end.tap.number(), frame.data(), frame.size()) < 0) ++end.refused;
}

bool Wan::release_from(Span& span, std::size_t end) {
  const auto released = span.ends[end]->out.release(loop_.now());
  if (!released) return false;
  write_to(*span.ends[1 - end], released->frame);
  delay_error_.record(loop_.now() - released->due);
  return true;
}

// One frame of each direction in turn, so that none waits for another's burst.
void Wan::release_due() {
  released_at_ = loop_.now();
  for (bool any = true; any;) {
    any = false;
    for (Span& span : spans_) {
      for (std::size_t end = 0; end < 2; ++end) any = release_from(span, end) || any;
    }
  }
  arm();
}

void Wan::arm() {
  std::optional<Instant> next;
  for (const Span& span : spans_) {
    for (const auto& end : span.ends) {
      const auto due = end->out.next_release();
      if (due && (!next || *due < *next)) next = due;
    }
  }
  if (next == armed_) return;
  armed_ = next;
  timer_.reset();
  if (!next) return;
  timer_ = loop_.at(std::max(*next, released_at_ + kGather), [this] {
    armed_.reset();
    release_due();
  });
}

void Wan::cut(Span& span, std::optional<Nanoseconds> duration) {
  for (const auto& end : span.ends) end->out.cut();
  span.heal_timer.reset();
  span.heals_at.reset();
  if (duration) {
    span.heals_at = loop_.now() + *duration;
    span.heal_timer = loop_.at(*span.heals_at, [this, &span] { heal(span); });
  }
  arm();
}

void Wan::heal(Span& span) {
  span.heal_timer.reset();
  span.heals_at.reset();
  for (const auto& end : span.ends) end->out.heal();
}

}  // namespace godwit::lab

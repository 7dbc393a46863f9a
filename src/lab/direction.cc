#include "lab/direction.hh"

namespace godwit::lab {
namespace {

constexpr std::uint16_t kTypeIpv4 = 0x0800;
constexpr std::uint16_t kTypeIpv6 = 0x86dd;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint8_t kProtocolUdp = 17;

Nanoseconds transmission_time(std::size_t bytes, BitRate rate) {
  return Nanoseconds(static_cast<std::uint64_t>(bytes) * 8'000'000'000U / rate.bits_per_second);
}

}  // namespace

Transport transport_of(BytesView frame) {
  Reader reader(frame);
  reader.bytes(kEthernetHeader - 2);
  const std::uint16_t type = reader.u16();
  if (type != kTypeIpv4 && type != kTypeIpv6) return Transport::other;
  // IPv4: the protocol is byte 9; IPv6: the next header is byte 6 (extension headers count as
  // other).
  reader.bytes(type == kTypeIpv4 ? 9 : 6);
  const std::uint8_t protocol = reader.u8();
  if (!reader.ok()) return Transport::other;
  if (protocol == kProtocolTcp) return Transport::tcp;
  return protocol == kProtocolUdp ? Transport::udp : Transport::other;
}

std::uint64_t DirectionCounters::dropped(DropCause cause) const {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : drops[static_cast<std::size_t>(cause)]) sum += count;
  return sum;
}

Direction::Direction(const LinkQuality& quality, std::uint64_t seed)
    : quality_(quality), random_(seed) {}

std::uint64_t Direction::queued_bytes(Instant now) const {
  if (!quality_.rate || line_free_ <= now) return 0;
  const double ahead = static_cast<double>((line_free_ - now).count()) / 1e9;
  return static_cast<std::uint64_t>(ahead * quality_.rate->bytes_per_second());
}

DropCause Direction::drop(DropCause cause, BytesView frame) {
  ++counters_.drops[static_cast<std::size_t>(cause)][static_cast<std::size_t>(transport_of(frame))];
  return cause;
}

std::optional<DropCause> Direction::offer(BytesView frame, Instant now) {
  if (frame.size() > kEthernetHeader + quality_.mtu) return drop(DropCause::mtu, frame);
  if (!up_) return drop(DropCause::cut, frame);
  if (quality_.loss > 0 && std::bernoulli_distribution(quality_.loss)(random_)) {
    return drop(DropCause::loss, frame);
  }
  if (in_flight_ + frame.size() > kMaxInFlightBytes) return drop(DropCause::queue, frame);
  Instant sent = now;
  if (quality_.rate) {
    // An idle link takes any frame, however small its queue is.
    const std::uint64_t queued = queued_bytes(now);
    if (queued > 0 && queued + frame.size() > quality_.queue.bytes_at(*quality_.rate)) {
      return drop(DropCause::queue, frame);
    }
    line_free_ = std::max(now, line_free_) + transmission_time(frame.size(), *quality_.rate);
    sent = line_free_;
  }
  Instant due = sent + sampled_delay();
  if (!quality_.reorder) due = last_due_ = std::max(due, last_due_);
  in_flight_ += frame.size();
  line_.push({due, next_order_++, store(frame)});
  return std::nullopt;
}

Nanoseconds Direction::sampled_delay() {
  if (quality_.jitter <= Nanoseconds(0)) return quality_.delay;
  std::uniform_int_distribution<Nanoseconds::rep> spread(-quality_.jitter.count(),
                                                         quality_.jitter.count());
  return std::max(Nanoseconds(0), quality_.delay + Nanoseconds(spread(random_)));
}

std::size_t Direction::store(BytesView frame) {
  if (free_slots_.empty()) {
    free_slots_.push_back(slots_.size());
    slots_.emplace_back();
  }
  const std::size_t slot = free_slots_.back();
  free_slots_.pop_back();
  slots_[slot].assign(frame.begin(), frame.end());
  return slot;
}

std::optional<Instant> Direction::next_release() const {
  if (line_.empty()) return std::nullopt;
  return line_.top().due;
}

std::optional<Direction::Released> Direction::release(Instant now) {
  if (line_.empty() || line_.top().due > now) return std::nullopt;
  const Entry entry = line_.top();
  line_.pop();
  free_slots_.push_back(entry.slot);
  const BytesView frame = slots_[entry.slot];
  in_flight_ -= frame.size();
  ++counters_.frames;
  counters_.bytes += frame.size();
  return Released{frame, entry.due};
}

void Direction::set_quality(const LinkQuality& quality, Instant now) {
  const std::uint64_t queued = queued_bytes(now);
  quality_ = quality;
  line_free_ = now;
  if (quality_.rate) line_free_ += transmission_time(queued, *quality_.rate);
}

void Direction::cut() {
  up_ = false;
  while (!line_.empty()) {
    const std::size_t slot = line_.top().slot;
    line_.pop();
    drop(DropCause::cut, slots_[slot]);
    free_slots_.push_back(slot);
  }
  in_flight_ = 0;
  line_free_ = last_due_ = Instant{};
}

}  // namespace godwit::lab

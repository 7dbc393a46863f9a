#include "wire/mtu_search.hh"

#include <algorithm>
#include <array>

namespace godwit::wire {
namespace {

// Tunnels and clouds: IPv6's minimum (RFC 8200), Azure 1400, WireGuard 1420, GCP 1460, PPPoE 1492
// (RFC 2516), Ethernet, AWS between regions 8500, GCP 8896, jumbo frames 9000, AWS 9001.
constexpr std::array<std::uint16_t, 11> kCommon = {1280, 1340, 1400, 1420, 1460, 1480,
                                                   1492, 1500, 8500, 8896, 9000};
constexpr std::uint16_t kEthernet = 1500;

}  // namespace

std::uint16_t MtuSearch::candidate() const {
  const auto is_open = [this](std::uint16_t size) { return size > confirmed_ && size < too_big_; };
  if (is_open(kEthernet)) return kEthernet;
  if (too_big_ == most_ + 1U && is_open(most_)) return most_;
  const auto begin = std::ranges::find_if(kCommon, is_open);
  const auto end = std::find_if_not(begin, kCommon.end(), is_open);
  if (begin != end) return begin[(end - begin) / 2];
  const std::uint32_t left = too_big_ - confirmed_;
  return left <= kStep ? 0 : static_cast<std::uint16_t>(confirmed_ + left / 2);
}

std::optional<std::uint16_t> MtuSearch::probe(Instant now, Nanoseconds patience) {
  if (now < next_) return std::nullopt;
  if (trying_ != 0 && tries_ >= kTries) {
    too_big_ = std::min<std::uint32_t>(too_big_, trying_);
    trying_ = 0;
  }
  if (trying_ == 0) {
    trying_ = candidate();
    tries_ = 0;
  }
  if (trying_ == 0) {  // complete: what is too big now may fit on another day
    next_ = now + raise_after_;
    too_big_ = most_ + 1U;
    return std::nullopt;
  }
  ++tries_;
  next_ = now + patience;
  return trying_;
}

bool MtuSearch::answered(std::uint16_t size, Instant now) {
  if (size <= confirmed_ || size > most_) return false;
  confirmed_ = size;
  too_big_ = std::max<std::uint32_t>(too_big_, size + 1U);  // a late answer: it fits after all
  trying_ = 0;
  next_ = now;
  return true;
}

void MtuSearch::black_hole(Instant now) {
  too_big_ = confirmed_;
  confirmed_ = floor_;
  trying_ = 0;
  next_ = now;
}

}  // namespace godwit::wire

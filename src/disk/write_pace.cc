#include "disk/write_pace.hh"

#include <algorithm>

namespace godwit::disk {
namespace {

constexpr double kShrink = 0.7;
constexpr std::uint64_t kSteps = 20;  // from nothing to all
constexpr std::uint64_t kLeastShare = 4;

}  // namespace

std::optional<BitRate> WritePace::look(Nanoseconds write, BitRate path) {
  if (limit_ == Nanoseconds(0)) return std::nullopt;
  most_ = std::max(most_, path);
  if (write > limit_) {
    if (cap_.bits_per_second == 0) cap_ = path;
    const auto less = static_cast<double>(cap_.bits_per_second) * kShrink;
    cap_.bits_per_second =
        std::max(static_cast<std::uint64_t>(less), most_.bits_per_second / kLeastShare);
  } else if (cap_.bits_per_second != 0) {
    cap_.bits_per_second += most_.bits_per_second / kSteps;
    if (cap_ >= most_) cap_ = {};
  }
  return cap_.bits_per_second == 0 ? std::nullopt : std::optional(cap_);
}

}  // namespace godwit::disk

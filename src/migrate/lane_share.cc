#include "migrate/lane_share.hh"

#include <algorithm>

namespace godwit::migrate {
namespace {

constexpr double kLeastOfRound = 256 << 10;  // bytes, for a round to say anything
constexpr double kLeastShare = 1.0 / 64;
constexpr double kMargin = 1.25;

}  // namespace

double LaneShare::at(std::uint64_t round, const Bytes& bytes) {
  if (round < 2) changes_begin_ = bytes.offered;
  if (round == round_) return share_;
  const auto raw = static_cast<double>(bytes.raw - began_.raw);
  const auto coded = static_cast<double>(bytes.coded - began_.coded);
  // What was read in the first round may be encoded in the second.
  if (round_ >= 2 && began_.raw >= changes_begin_ && raw >= kLeastOfRound) {
    share_ = std::clamp(kMargin * coded / raw, kLeastShare, 1.0);
  }
  round_ = round;
  began_ = bytes;
  return share_;
}

}  // namespace godwit::migrate

#include "migrate/group.hh"

#include <algorithm>
#include <numeric>

namespace godwit::migrate {
namespace {

using S = SourceState;

// A member whose memory is all there keeps this share of the cap, for what it dirties.
constexpr double kLeastShare = 0.02;

bool is_handed_over(S state) {
  return state == S::released || state == S::committed || state == S::draining || state == S::done;
}
bool is_given_up(S state) { return state == S::aborting || state == S::aborted; }

// By what is left to send, so that all become ready together: what a second dirties counts, too.
std::vector<BitRate> shares(BitRate cap, std::span<const GroupMember> members) {
  if (cap.bits_per_second == 0) return {};
  std::vector<double> weights;
  for (const GroupMember& member : members) {
    const bool moves = !is_given_up(member.state) && !is_handed_over(member.state);
    weights.push_back(moves ? 1 + member.remaining_bytes + member.dirty_bytes_per_second : 0);
  }
  const double least = kLeastShare * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight = weight > 0 ? std::max(weight, least) : 0;
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<BitRate> caps;
  for (const double weight : weights) {
    const double share = all > 0 ? weight / all : 1;
    const double rate = static_cast<double>(cap.bits_per_second) * share;
    caps.push_back({std::max<std::uint64_t>(1, static_cast<std::uint64_t>(rate))});
  }
  return caps;
}

}  // namespace

GroupVerdict judge(const GroupOptions& options, std::span<const GroupMember> members) {
  const auto any = [&](bool (*is)(S)) {
    return std::ranges::any_of(members, [is](const GroupMember& each) { return is(each.state); });
  };
  GroupVerdict verdict;
  if (any(is_given_up)) {
    verdict.abort = !any(is_handed_over);
    if (verdict.abort) return verdict;
  }
  verdict.caps = shares(options.cap, members);
  const bool has_begun = std::ranges::any_of(members, &GroupMember::cutover_told);
  const bool all_ready =
      std::ranges::all_of(members, [](const GroupMember& each) { return each.state == S::ready; });
  if (!has_begun && (options.hold || !all_ready)) return verdict;
  for (std::size_t i = 0; i < members.size(); ++i) {
    const GroupMember& member = members[i];
    if (!member.cutover_told && member.state == S::ready) verdict.cutover.push_back(i);
    const bool is_over = is_handed_over(member.state) && member.state != S::released;
    if (options.in_order && !is_over && !is_given_up(member.state)) break;
  }
  return verdict;
}

SourceState state_of(std::span<const GroupMember> members) {
  const auto rank = [](const GroupMember& member) {
    return is_given_up(member.state) ? static_cast<int>(S::done) + 1
                                     : static_cast<int>(member.state);
  };
  const auto least = std::ranges::min_element(members, {}, rank);
  if (least == members.end()) return S::planned;
  if (!is_given_up(least->state)) return least->state;
  const bool one_is_at_it = std::ranges::any_of(
      members, [](const GroupMember& each) { return each.state == S::aborting; });
  return one_is_at_it ? S::aborting : S::aborted;
}

}  // namespace godwit::migrate

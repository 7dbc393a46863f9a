#include "net/fragment_table.hh"

#include <algorithm>

namespace godwit::net {
namespace {

constexpr Nanoseconds kLife = seconds(30);  // as Linux waits (net.ipv4.ipfrag_time)

}  // namespace

void FragmentTable::remember(const Key& key, Member member, Instant now) {
  const auto same = std::ranges::find(entries_, key, &Entry::key);
  Entry& entry = same != entries_.end() ? *same : entries_[next_++ % kMost];
  entry = {.key = key, .member = member, .ends = now + kLife};
}

std::optional<FragmentTable::Member> FragmentTable::find(const Key& key, Instant now) const {
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found == entries_.end() || found->ends <= now) return std::nullopt;
  return found->member;
}

}  // namespace godwit::net

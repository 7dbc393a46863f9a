#include "stream/intervals.hh"

#include <algorithm>
#include <iterator>

namespace godwit::stream {

void Intervals::add(std::uint64_t from, std::uint64_t to) {
  if (from >= to) return;
  auto at = ranges_.upper_bound(from);
  if (at != ranges_.begin() && std::prev(at)->second >= from) --at;
  while (at != ranges_.end() && at->first <= to) {
    from = std::min(from, at->first);
    to = std::max(to, at->second);
    bytes_ -= at->second - at->first;
    at = ranges_.erase(at);
  }
  ranges_.emplace_hint(at, from, to);
  bytes_ += to - from;
}

void Intervals::remove_below(std::uint64_t position) {
  while (!ranges_.empty() && first().from < position) {
    const Range range = first();
    ranges_.erase(ranges_.begin());
    bytes_ -= range.to - range.from;
    add(position, range.to);
  }
}

bool Intervals::contains(std::uint64_t from, std::uint64_t to) const {
  const auto after = ranges_.upper_bound(from);
  return after != ranges_.begin() && std::prev(after)->second >= to;
}

}  // namespace godwit::stream

#include "lab/guest/sequence_log.hh"

#include <algorithm>

namespace godwit::lab {
namespace {

void list(std::vector<std::uint64_t>& to, std::uint64_t sequence) {
  if (to.size() < kMaxListed) to.push_back(sequence);
}

}  // namespace

SequenceLog::Verdict SequenceLog::arrived(std::uint64_t sequence) {
  if (sequence >= kMaxSequence) return Verdict::out_of_range;
  if (sequence >= seen_.size()) {
    seen_.resize(std::min(kMaxSequence, std::max(sequence + 1, 2 * std::uint64_t{seen_.size()})));
  }
  if (seen_[sequence]) {
    ++duplicates_;
    list(duplicated_, sequence);
    return Verdict::duplicate;
  }
  seen_[sequence] = true;
  ++received_;
  if (sequence < end_) {
    ++reorderings_;
    list(reordered_, sequence);
    return Verdict::reordered;
  }
  end_ = sequence + 1;
  return Verdict::fresh;
}

bool SequenceLog::contains(std::uint64_t sequence) const {
  return sequence < seen_.size() && seen_[sequence];
}

std::vector<std::uint64_t> SequenceLog::missing(std::uint64_t from, std::uint64_t limit) const {
  std::vector<std::uint64_t> out;
  for (std::uint64_t i = from; i < std::min(limit, kMaxSequence) && out.size() < kMaxListed; ++i) {
    if (!contains(i)) out.push_back(i);
  }
  return out;
}

}  // namespace godwit::lab

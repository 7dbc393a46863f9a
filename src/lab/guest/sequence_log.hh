#pragma once
// Which sequence numbers arrived: lost, duplicated and reordered ones, by number, so that they can
// be assigned to a window of time later. Pure and bounded; used by the guest and by the probe.
#include <cstddef>
#include <cstdint>
#include <vector>

namespace godwit::lab {

// 2^22 packets are 70 minutes at 1,000 per second, 512 KiB of bits.
inline constexpr std::uint64_t kMaxSequence = 1ULL << 22;
// More than these are counted but not listed.
inline constexpr std::size_t kMaxListed = 4096;

class SequenceLog final {
 public:
  enum class Verdict { fresh, duplicate, reordered, out_of_range };

  // reordered: first arrival of a number lower than one that arrived before it.
  Verdict arrived(std::uint64_t sequence);

  std::uint64_t received() const { return received_; }  // different numbers
  std::uint64_t duplicates() const { return duplicates_; }
  std::uint64_t reorderings() const { return reorderings_; }
  std::uint64_t end() const { return end_; }  // one more than the highest that arrived
  const std::vector<std::uint64_t>& duplicated() const { return duplicated_; }
  const std::vector<std::uint64_t>& reordered() const { return reordered_; }
  bool contains(std::uint64_t sequence) const;
  // Numbers below `limit` that did not arrive, at most kMaxListed of them from `from` on.
  std::vector<std::uint64_t> missing(std::uint64_t from, std::uint64_t limit) const;

 private:
  std::vector<bool> seen_;
  std::uint64_t end_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t duplicates_ = 0;
  std::uint64_t reorderings_ = 0;
  std::vector<std::uint64_t> duplicated_;
  std::vector<std::uint64_t> reordered_;
};

}  // namespace godwit::lab

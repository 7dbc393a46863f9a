#include "lab/guest/dirty_memory.hh"

#include <algorithm>

#include "lab/guest/pattern.hh"

namespace godwit::lab {
namespace {

constexpr std::uint64_t kNanosecondsPerSecond = 1'000'000'000;

}  // namespace

DirtyMemory::DirtyMemory(std::size_t working_set_bytes, std::uint64_t bytes_per_second)
    : bytes_per_second_(bytes_per_second),
      words_(std::max<std::size_t>(working_set_bytes / kPageBytes, 1) * kWords),
      generations_(std::max<std::size_t>(working_set_bytes / kPageBytes, 1)) {
  for (std::size_t i = 0; i < generations_.size(); ++i) write(i);
  pages_written_ = 0;
}

void DirtyMemory::tick(std::chrono::nanoseconds now) {
  const auto elapsed = last_.count() < 0 ? std::chrono::nanoseconds(0) : now - last_;
  last_ = now;
  const auto counted = static_cast<std::uint64_t>(
      std::clamp<std::chrono::nanoseconds>(elapsed, {}, kMostArrears).count());
  credit_ += counted * bytes_per_second_;
  constexpr std::uint64_t kPageCredit = kPageBytes * kNanosecondsPerSecond;
  for (; credit_ >= kPageCredit; credit_ -= kPageCredit) {
    if (!is_intact(next_)) ++damaged_;
    write(next_);
    next_ = (next_ + 1) % generations_.size();
  }
}

std::uint64_t DirtyMemory::check_all() {
  for (std::size_t i = 0; i < generations_.size(); ++i) {
    if (!is_intact(i)) ++damaged_;
  }
  return damaged_;
}

void DirtyMemory::write(std::size_t number) {
  std::uint64_t state = seed_of(number, ++generations_[number]);
  std::uint64_t* words = page(number);
  for (std::size_t i = 0; i < kWords; ++i) words[i] = next_word(state);
  ++pages_written_;
}

bool DirtyMemory::is_intact(std::size_t number) {
  std::uint64_t state = seed_of(number, generations_[number]);
  const std::uint64_t* words = page(number);
  for (std::size_t i = 0; i < kWords; ++i) {
    if (words[i] != next_word(state)) return false;
  }
  return true;
}

}  // namespace godwit::lab

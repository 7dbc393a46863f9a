#include "crypto/replay.hh"

#include <algorithm>
#include <bit>
#include <limits>

namespace godwit::crypto {

std::uint64_t ReplayWindow::oldest() const {
  if (end_ == 0) return 0;
  const std::uint64_t words_ever = (end_ - 1) / 64 + 1;
  return words_ever > kWords ? (words_ever - kWords) * 64 : 0;
}

bool ReplayWindow::is_fresh(std::uint64_t counter) const {
  if (counter >= end_) return counter != std::numeric_limits<std::uint64_t>::max();
  return counter >= oldest() && !is_set(counter);
}

bool ReplayWindow::accept(std::uint64_t counter) {
  if (!is_fresh(counter)) return false;
  if (counter >= end_) slide_to(counter);
  word(counter) |= std::uint64_t{1} << (counter % 64);
  return true;
}

void ReplayWindow::slide_to(std::uint64_t counter) {
  const std::uint64_t current = end_ == 0 ? 0 : (end_ - 1) / 64;
  const std::uint64_t wanted = counter / 64;
  if (wanted > current) {
    contiguous_ = contiguous();
    const std::uint64_t clear = std::min(wanted - current, kWords);
    for (std::uint64_t i = 0; i < clear; ++i) words_[(wanted - i) % kWords] = 0;
  }
  end_ = counter + 1;
}

// Scans whole words: at most 1024 of them.
std::uint64_t ReplayWindow::first_unset(std::uint64_t from, std::uint64_t to) const {
  while (from < to) {
    const std::uint64_t bit = from % 64;
    const auto ones = static_cast<std::uint64_t>(std::countr_one(word(from) >> bit));
    if (ones < 64 - bit) return std::min(from + ones, to);
    from += 64 - bit;
  }
  return to;
}

std::uint64_t ReplayWindow::contiguous() const {
  // What is missing below the window will be missing for ever.
  return contiguous_ < oldest() ? contiguous_ : first_unset(contiguous_, end_);
}

bool ReplayWindow::has_all_between(std::uint64_t from, std::uint64_t to) const {
  if (from >= to) return true;
  if (to > end_) return false;
  const std::uint64_t start = std::max(from, oldest());
  if (from < start && contiguous() < std::min(start, to)) return false;
  return start >= to || first_unset(start, to) == to;
}

}  // namespace godwit::crypto

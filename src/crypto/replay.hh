#pragma once
// Which counters of one key have arrived: a sliding bitmap (RFC 6479) that refuses the second copy
// of a datagram and anything too old to tell. Consulted before decryption to spend nothing on
// copies, and updated only after the tag was found good.
//
//            oldest()                 contiguous()              highest()
//   refused     |  1 1 1 1 1 1 1 1 1 1 1 | 0 1 1 0 1 1 1 1 1 1 1 1 |   not seen yet
#include <cstdint>
#include <vector>

namespace godwit::crypto {

// One per receiver index, owned by its thread. The bitmap (8 KiB) is allocated once.
class ReplayWindow final {
 public:
  // Counters the ring holds; the newest word of 64 may be partly ahead of the highest counter, so
  // at least kWindow - 63 are answered for. At 1.4 kB per datagram: 90 MB, 10 Gbit/s for 72 ms.
  static constexpr std::uint64_t kWindow = 64 * 1024;

  ReplayWindow() : words_(kWords) {}

  // True when `counter` is neither a copy nor too old.
  bool is_fresh(std::uint64_t counter) const;
  // Records an authentic counter. False, and nothing changed, when it is not fresh.
  [[nodiscard]] bool accept(std::uint64_t counter);

  // One above the highest accepted counter; 0 when there is none.
  std::uint64_t end() const { return end_; }
  // True when every counter below `counter` was accepted, from 0 on.
  bool has_all_below(std::uint64_t counter) const { return contiguous() >= counter; }
  // True when every counter in [from, to) was accepted. What left the window counts as accepted
  // only if nothing below was ever missing.
  bool has_all_between(std::uint64_t from, std::uint64_t to) const;
  // The lowest counter that was not accepted.
  std::uint64_t contiguous() const;

 private:
  static constexpr std::uint64_t kWords = kWindow / 64;

  std::uint64_t& word(std::uint64_t counter) { return words_[(counter / 64) % kWords]; }
  std::uint64_t word(std::uint64_t counter) const { return words_[(counter / 64) % kWords]; }
  bool is_set(std::uint64_t counter) const { return (word(counter) >> (counter % 64)) & 1; }
  std::uint64_t oldest() const;
  std::uint64_t first_unset(std::uint64_t from, std::uint64_t to) const;
  void slide_to(std::uint64_t counter);

  std::vector<std::uint64_t> words_;
  std::uint64_t end_ = 0;
  // Everything below was accepted; brought up to date before sliding forgets what it needs.
  std::uint64_t contiguous_ = 0;
};

}  // namespace godwit::crypto

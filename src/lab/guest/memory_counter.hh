#pragma once
// A number in memory that only grows by one. It is kept in two distant pages, plain and inverted,
// so that a page that was lost or rolled back alone shows as damage.
#include <cstdint>
#include <memory>
#include <vector>

namespace godwit::lab {

class MemoryCounter final {
 public:
  void increment() {
    if (!is_intact()) ++damaged_;
    ++*plain();
    *inverted() = ~*plain();
  }
  std::uint64_t value() const { return pages_[0]; }
  std::uint64_t damaged() const { return damaged_; }
  bool is_intact() { return *plain() == ~*inverted(); }
  std::uint64_t* plain() { return pages_.data(); }
  std::uint64_t* inverted() { return &pages_.back(); }

 private:
  static constexpr std::size_t kApart = 4 * 4096 / sizeof(std::uint64_t);

  static std::vector<std::uint64_t> initial() {
    std::vector<std::uint64_t> pages(kApart);
    pages.back() = ~std::uint64_t{0};
    return pages;
  }
  std::vector<std::uint64_t> pages_ = initial();
  std::uint64_t damaged_ = 0;
};

}  // namespace godwit::lab

#pragma once
// The most of something within a while: exactly of the running span and of the one before it.
#include <algorithm>
#include <utility>

#include "base/units.hh"

namespace godwit::stream {

template <class T>
class RecentMost final {
 public:
  explicit RecentMost(Nanoseconds span) : span_(span) {}

  void see(Instant now, T value) {
    if (now - began_ > span_) {
      began_ = now;
      before_ = std::exchange(running_, T{});
    }
    running_ = std::max(running_, value);
  }
  T most() const { return std::max(running_, before_); }

 private:
  Nanoseconds span_;
  Instant began_{};
  T running_{}, before_{};
};

}  // namespace godwit::stream

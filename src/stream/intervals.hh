#pragma once
// A set of stream positions as ranges [from, to), adjacent ones joined: what came out of order,
// what has to be sent again. Few at a time.
#include <cstdint>
#include <map>

namespace godwit::stream {

class Intervals final {
 public:
  struct Range {
    std::uint64_t from = 0, to = 0;
    bool operator==(const Range&) const = default;
  };
  void add(std::uint64_t from, std::uint64_t to);
  void remove_below(std::uint64_t position);
  bool contains(std::uint64_t from, std::uint64_t to) const;

  bool empty() const { return ranges_.empty(); }
  std::size_t count() const { return ranges_.size(); }
  std::uint64_t bytes() const { return bytes_; }
  Range first() const { return {ranges_.begin()->first, ranges_.begin()->second}; }
  Range last() const { return {ranges_.rbegin()->first, ranges_.rbegin()->second}; }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // to by from
  std::uint64_t bytes_ = 0;
};

}  // namespace godwit::stream

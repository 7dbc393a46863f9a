#pragma once
// Pages kept in memory in the order in which they came, compressed in groups. One writer; pages are
// read by their place, any number of readers as long as nothing is added.
#include <deque>
#include <optional>

#include "base/bytes.hh"

namespace godwit::codec {

class PackedPages final {
 public:
  explicit PackedPages(std::size_t page_size) : page_size_(page_size) {}

  void add(BytesView page);
  // Compresses what is not yet; no more is added.
  void close();

  std::size_t page_size() const { return page_size_; }
  std::size_t count() const { return count_; }
  std::size_t bytes() const { return bytes_; }  // of memory; the last pages count when compressed

  // A reader's: the group that it read last.
  struct Unpacked {
    std::optional<std::size_t> group;
    Bytes pages;
  };
  // Empty: there is no such page. Valid until the next call, or add().
  BytesView page(std::uint64_t place, Unpacked& unpacked) const;

 private:
  std::size_t page_size_;
  std::size_t count_ = 0, bytes_ = 0;
  std::deque<Bytes> groups_;  // each compressed
  Bytes open_;                // the last group, as it fills
};

}  // namespace godwit::codec

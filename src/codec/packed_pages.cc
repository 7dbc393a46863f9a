#include "codec/packed_pages.hh"

#include <zstd.h>

#include <algorithm>

#include "base/check.hh"

namespace godwit::codec {
namespace {

// Compressed together, and decompressed for one of them: 64 KiB.
constexpr std::size_t kGroup = 16;
constexpr int kLevel = 1;

}  // namespace

void PackedPages::add(BytesView page) {
  CHECK(page.size() == page_size_);
  append(open_, page);
  ++count_;
  if (open_.size() == kGroup * page_size_) close();
}

void PackedPages::close() {
  if (open_.empty()) return;
  Bytes coded(ZSTD_compressBound(open_.size()));
  const std::size_t size =
      ZSTD_compress(coded.data(), coded.size(), open_.data(), open_.size(), kLevel);
  CHECK(ZSTD_isError(size) == 0, "zstd: {}", ZSTD_getErrorName(size));
  groups_.emplace_back(coded.begin(), coded.begin() + static_cast<std::ptrdiff_t>(size));
  bytes_ += size;
  open_.clear();
}

BytesView PackedPages::page(std::uint64_t place, Unpacked& unpacked) const {
  if (place >= count_) return {};
  const std::size_t group = place / kGroup;
  const std::size_t at = place % kGroup * page_size_;
  if (group == groups_.size()) return BytesView(open_).subspan(at, page_size_);
  if (unpacked.group != group) {
    unpacked.group = group;
    unpacked.pages.resize(std::min(kGroup, count_ - group * kGroup) * page_size_);
    const Bytes& coded = groups_[group];
    const std::size_t done =
        ZSTD_decompress(unpacked.pages.data(), unpacked.pages.size(), coded.data(), coded.size());
    CHECK(done == unpacked.pages.size(), "pages that were kept in memory cannot be decompressed");
  }
  return BytesView(unpacked.pages).subspan(at, page_size_);
}

}  // namespace godwit::codec

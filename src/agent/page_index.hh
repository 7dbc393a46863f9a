#pragma once
// The names of what a disk has in pages of memory (codec/known_pages.hh): a guest that has read a
// file from it has the same bytes in its page cache, page for page, as file systems put files at
// multiples of 4 KiB. A file beside the disk's index of blocks (content_file.hh), made with it:
//
//    0       64                                     64 + 20 n
//    +-------+-----------------+-----------+-- ... --+-------+
//    | stamp | u32 page's place | its name | ...     | u64 n |
//    +-------+-----------------+-----------+-- ... --+-------+
//
// stamp: as of the index. Places are in pages from the disk's beginning, ascending; zeroes and
// repetitions are left out.
#include <filesystem>
#include <fstream>
#include <unordered_set>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "codec/known_pages.hh"
#include "crypto/keyed_hash.hh"

namespace godwit::agent {

// Of one disk, and of all that one move is told of: a gigabyte's, 4 MiB to tell.
inline constexpr std::size_t kMostPages = 1 << 18;

struct NamedPage {
  std::uint32_t place = 0;
  codec::PageName name{};
};

class PageIndex final {
 public:
  // Writes to `file`.
  PageIndex(const std::filesystem::path& file, BytesView stamp, BytesView key);

  // What the disk has at `offset`, a multiple of a page.
  void add(std::uint64_t offset, BytesView bytes);
  // The error: it could not be written.
  Result<> end();

 private:
  std::filesystem::path path_;
  std::ofstream file_;
  crypto::KeyedHash hash_;
  std::unordered_set<codec::PageName, codec::HashOfName> names_;
};

// It has this stamp, and is whole.
bool is_page_index(const std::filesystem::path& file, BytesView stamp);
Result<std::vector<NamedPage>> read_page_index(const std::filesystem::path& file, BytesView stamp);

}  // namespace godwit::agent

#pragma once
// Pages that a host has before a vm comes: of the vm, from when it was there or from a move that
// broke off, and others, in images. A move to that host need not send them. The host offers a
// catalogue, the names of the pages under a key of its own; the encoder at the other end refers to
// a page by its place in it.
//
//   host: add() ... seal() -> catalogue() --> other end: Catalogue::learn() -> find(page) -> place
//         KnownReader::page(place) <------------------- reference ----------------------'
//
// Names are strong and keyed (crypto/keyed_hash.hh), as neither end has the other's bytes to
// compare; the digest of the whole stream still has the last word. Sealed pages are read by any
// number of threads.
#include <memory>
#include <optional>
#include <unordered_set>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "codec/packed_pages.hh"
#include "crypto/keyed_hash.hh"

namespace godwit::codec {

using PageName = crypto::KeyedHash::Digest;
struct HashOfName {
  std::size_t operator()(const PageName& name) const;
};

class KnownPages final {
 public:
  // `budget`: bytes that the compressed pages and their names take at most. `key`:
  // KeyedHash::kKeySize random bytes.
  KnownPages(std::size_t page_size, std::size_t budget, BytesView key);

  // Page by page, best in the order in which they will be sent. Zero pages, and what is there
  // already, are passed over; so is all that comes when it is full().
  void add(BytesView page);
  bool full() const { return full_; }
  void seal();

  std::size_t page_size() const { return pages_.page_size(); }
  std::size_t pages() const { return pages_.count(); }
  std::size_t bytes() const { return pages_.bytes() + pages() * crypto::KeyedHash::kSize; }
  // The key, then a name of KeyedHash::kSize bytes for each page.
  BytesView catalogue() const { return catalogue_; }

 private:
  friend class KnownReader;

  PackedPages pages_;
  std::size_t budget_;
  crypto::KeyedHash hash_;
  Bytes catalogue_;
  std::unordered_set<PageName, HashOfName> names_;  // until sealed
  bool full_ = false;
};

// Pages that a host has elsewhere than in memory, under the same key.
class OtherPages {
 public:
  OtherPages() = default;
  OtherPages(const OtherPages&) = delete;
  OtherPages& operator=(const OtherPages&) = delete;
  virtual ~OtherPages() = default;

  // As KnownPages::catalogue().
  virtual BytesView catalogue() const = 0;
  // page() of it comes soon: time to fetch it. Of places that are not there, too. One thread.
  virtual void expect(std::uint64_t place) = 0;
  // The error: there is none, or not any more. Blocks; the same thread. Valid until the next call.
  virtual Result<BytesView> page(std::uint64_t place) = 0;
};

// What a host offers to one move.
struct Known {
  std::shared_ptr<const KnownPages> kept{};  // of the vm
  std::shared_ptr<OtherPages> others{};      // their places are behind those of `kept`
};

// Of both; empty: nothing is known.
Bytes catalogue_of(const Known& known);

class KnownReader final {
 public:
  explicit KnownReader(Known known) : known_(std::move(known)) {}
  void expect(std::uint64_t place);
  // The error: there is no such page. Valid until the next call.
  Result<BytesView> page(std::uint64_t place);

 private:
  std::uint64_t kept() const { return known_.kept ? known_.kept->pages() : 0; }

  Known known_;
  PackedPages::Unpacked unpacked_;
};

// The encoder's side.
class Catalogue final {
 public:
  // The next of its bytes.
  void learn(BytesView bytes);
  bool empty() const { return names_.empty(); }
  // After kMostMisses in a row one page in kStride is looked for, until one is found: where nothing
  // is, names cost a third of what compressing does.
  std::optional<std::uint64_t> find(BytesView page);
  static constexpr std::uint64_t kMostMisses = 256, kStride = 16;

 private:
  void add(const PageName& name);
  void grow();
  std::size_t entry_of(const PageName& name) const;

  Bytes rest_;  // of a key or name that was cut
  std::optional<crypto::KeyedHash> hash_;
  std::vector<PageName> names_;
  std::vector<std::uint32_t> table_;  // open addressing: place + 1, or 0
  std::uint64_t misses_ = 0;          // since a page was found
};

}  // namespace godwit::codec

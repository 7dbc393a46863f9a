#include "codec/known_pages.hh"

#include <algorithm>
#include <bit>

#include "base/check.hh"

namespace godwit::codec {

using crypto::KeyedHash;

namespace {

constexpr std::size_t kLeastTable = 1024;

std::size_t start_of(const PageName& name) {
  std::size_t value = 0;
  std::memcpy(&value, name.data(), sizeof value);  // as good as random
  return value;
}

}  // namespace

std::size_t HashOfName::operator()(const PageName& name) const { return start_of(name); }

KnownPages::KnownPages(std::size_t page_size, std::size_t budget, BytesView key)
    : pages_(page_size), budget_(budget), hash_(key), catalogue_(to_bytes(key)) {}

void KnownPages::add(BytesView page) {
  CHECK(page.size() == page_size());
  if (full_) return;
  if (is_all_zeros(page)) return;
  const PageName name = hash_(page);
  if (!names_.insert(name).second) return;
  append(catalogue_, name);
  pages_.add(page);
  full_ = bytes() >= budget_;
}

void KnownPages::seal() {
  pages_.close();
  full_ = true;
  names_ = {};
  catalogue_.shrink_to_fit();
}

Bytes catalogue_of(const Known& known) {
  Bytes catalogue = known.kept ? to_bytes(known.kept->catalogue()) : Bytes{};
  if (!known.others) return catalogue;
  const BytesView others = known.others->catalogue();
  if (catalogue.empty()) return to_bytes(others);
  constexpr std::size_t kKey = KeyedHash::kKeySize;
  CHECK(std::ranges::equal(BytesView(catalogue).first(kKey), others.first(kKey)));
  append(catalogue, others.subspan(kKey));
  return catalogue;
}

void KnownReader::expect(std::uint64_t place) {
  if (place >= kept() && known_.others) known_.others->expect(place - kept());
}

Result<BytesView> KnownReader::page(std::uint64_t place) {
  if (place < kept()) return known_.kept->pages_.page(place, unpacked_);
  if (!known_.others) return fail("there is no known page {}", place);
  return known_.others->page(place - kept());
}

void Catalogue::learn(BytesView bytes) {
  append(rest_, bytes);
  BytesView left(rest_);
  if (!hash_ && left.size() >= KeyedHash::kKeySize) {
    hash_.emplace(left.first(KeyedHash::kKeySize));
    left = left.subspan(KeyedHash::kKeySize);
  }
  while (hash_ && left.size() >= KeyedHash::kSize) {
    PageName name;
    std::ranges::copy(left.first(KeyedHash::kSize), name.begin());
    add(name);
    left = left.subspan(KeyedHash::kSize);
  }
  rest_ = to_bytes(left);
}

std::optional<std::uint64_t> Catalogue::find(BytesView page) {
  if (names_.empty()) return std::nullopt;
  if (misses_ > kMostMisses && misses_ % kStride != 0) return ++misses_, std::nullopt;
  const std::uint32_t entry = table_[entry_of((*hash_)(page))];
  if (entry == 0) return ++misses_, std::nullopt;
  misses_ = 0;
  return entry - 1;
}

// Where the name is, or would be.
std::size_t Catalogue::entry_of(const PageName& name) const {
  std::size_t at = start_of(name) & (table_.size() - 1);
  while (table_[at] != 0 && names_[table_[at] - 1] != name) at = (at + 1) & (table_.size() - 1);
  return at;
}

// At most half of the table is used.
void Catalogue::grow() {
  table_.assign(std::max(kLeastTable, std::bit_ceil(4 * (names_.size() + 1))), 0);
  for (std::size_t i = 0; i < names_.size(); ++i) {
    std::uint32_t& entry = table_[entry_of(names_[i])];
    if (entry == 0) entry = static_cast<std::uint32_t>(i + 1);
  }
}

void Catalogue::add(const PageName& name) {
  if (2 * (names_.size() + 1) > table_.size()) grow();
  names_.push_back(name);
  std::uint32_t& entry = table_[entry_of(name)];
  if (entry == 0) entry = static_cast<std::uint32_t>(names_.size());
}

}  // namespace godwit::codec

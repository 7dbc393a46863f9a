#include "disk/catalogue.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::disk {

Name name_of(const Digest& digest) { return from_big_endian<Name>(digest.data()); }

void append(const CataloguePart& part, Bytes& out) {
  CHECK(part.names.size() <= kMostNamesOfPart);
  Writer writer(out);
  writer.u8(0).u8(1).u16(static_cast<std::uint16_t>(part.names.size())).u32(0).u64(0);
  for (const Name name : part.names) writer.u32(name);
}

void append(const KeyPart& part, Bytes& out) {
  Writer(out).u8(0).u8(2).u16(0).u32(0).u64(0).bytes(part.key);
}

bool Catalogue::learn(const CataloguePart& part) {
  if (names_.size() + part.names.size() > kMostNames) return false;
  for (const Name name : part.names) {
    if (!names_.empty() && name <= names_.back()) return false;
    names_.push_back(name);
  }
  return true;
}

bool Catalogue::has(const Digest& digest) const {
  return std::ranges::binary_search(names_, name_of(digest));
}

void Catalogue::was_not_there(const Digest& digest) {
  if (++not_there_ > there_ + kMostNotThere) return names_.clear();
  const auto found = std::ranges::lower_bound(names_, name_of(digest));
  if (found != names_.end() && *found == name_of(digest)) names_.erase(found);
}

}  // namespace godwit::disk

#pragma once
// What the target has elsewhere: names of the blocks of its images, and of other disks that it may
// look into for this vm. A block with such a name need not come: the source sends its whole digest
// (RecordKind::kCopy), and the target looks whether it has that. So a name may be short, and be
// another block's once in a while: it is compared, never trusted. Bytes: docs/protocol/disks.md.
//
//    0      1      2        4                             16
//    +------+------+--------+-----------------------------+
//    | 0    | 1    | count  | 0                           | count names of 4 bytes
//    +------+------+--------+-----------------------------+
//    | 0    | 2    | 0                                    | a key of 32 bytes
//    +------+------+--------------------------------------+
#include <array>
#include <vector>

#include "base/bytes.hh"
#include "crypto/keyed_hash.hh"

namespace godwit::disk {

using Digest = crypto::KeyedHash::Digest;
// The first bytes of a block's digest. Of a million of them one in 4,000 other blocks has one, too.
using Name = std::uint32_t;

inline constexpr std::size_t kMostNames = 1 << 20;  // of 64 GiB: 4 MiB to tell and to keep
inline constexpr std::size_t kMostNamesOfPart = 16384;

Name name_of(const Digest& digest);

struct CataloguePart {
  std::vector<Name> names;  // ascending, over all parts
};

void append(const CataloguePart& part, Bytes& out);

// Before all else: digests are made with this key, that of the target's host.
struct KeyPart {
  std::array<std::byte, crypto::KeyedHash::kKeySize> key{};
};

void append(const KeyPart& part, Bytes& out);

// As the source knows it. Pure; owned by one thread.
class Catalogue final {
 public:
  // False: not in order, or too many.
  bool learn(const CataloguePart& part);
  bool empty() const { return names_.empty(); }
  bool has(const Digest& digest) const;
  // The target looked for a block of this digest.
  void was_there() { ++there_; }
  void was_not_there(const Digest& digest);

 private:
  // By so many more than were there, and all that it told is worth nothing: it changed.
  static constexpr std::uint64_t kMostNotThere = 1024;

  std::vector<Name> names_;  // ascending
  std::uint64_t there_ = 0, not_there_ = 0;
};

}  // namespace godwit::disk

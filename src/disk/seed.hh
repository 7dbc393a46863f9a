#pragma once
// What the target has of disks already: what a vm left there when it moved away, or a copy that
// broke off. It is compared, never trusted: the target tells a digest of each block that it has,
// and what is the same need not come. After rsync's block digests (Tridgell and Mackerras, 1996),
// with one strong digest, as blocks of a disk do not shift. Bytes: docs/protocol/disks.md.
//
//    0      1      2        4          8                  16
//    +------+------+--------+----------+------------------+
//    | disk | 0    | count  | 0        | offset           | count digests of 16 bytes
//    +------+------+--------+----------+------------------+
#include <optional>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "disk/catalogue.hh"
#include "disk/dirty_map.hh"

namespace godwit::disk {

inline constexpr std::size_t kSeedHeader = 16;          // bytes
inline constexpr std::size_t kMostSeedDigests = 4096;   // of one part
inline constexpr std::size_t kMostDigestsKept = 65536;  // of 4 GiB; what comes then waits

// Of `offset` on the target has blocks with these digests; of what was before it, and in no part,
// nothing: zeroes, or what the image has.
struct SeedPart {
  std::uint8_t disk = 0;
  std::uint64_t offset = 0;  // of a block; the disk's size: this is all
  std::vector<Digest> digests{};
};

void append(const SeedPart& part, Bytes& out);

using ToldPart = std::variant<SeedPart, CataloguePart, KeyPart>;

// Cuts a stream of any chunks into parts.
class SeedReader final {
 public:
  // Sizes of the vm's disks.
  explicit SeedReader(std::vector<ByteCount> disks) : disks_(std::move(disks)) {}

  void push(BytesView bytes);
  // The next whole part. An error: these are no parts, or not of these disks.
  Result<std::optional<ToldPart>> next();

 private:
  Result<std::optional<ToldPart>> next_of_none(Reader reader);

  std::vector<ByteCount> disks_;
  Bytes pending_;
  std::size_t taken_ = 0;
};

// One disk of the target's, as the source knows it. Pure; owned by one thread.
class Seed final {
 public:
  explicit Seed(ByteCount size) : size_(size.bytes), changed_(size) {}

  // False: not in order. Every block of the part may differ, until it is found to be the same.
  bool learn(const SeedPart& part);
  // What the target has below is known.
  std::uint64_t known_to() const { return known_to_; }
  bool is_known() const { return known_to_ == size_; }

  // A record goes that changes this: what the target said of it, or is about to, is of before.
  void change(Extent extent);
  // The block at `offset`, if the target has it and nothing was sent for it.
  const Digest* digest_at(std::uint64_t offset) const;
  // It was compared.
  void forget(std::uint64_t offset) { digests_.erase(offset / kBlockBytes); }
  std::size_t digests_kept() const { return digests_.size(); }

 private:
  std::uint64_t size_, known_to_ = 0;
  std::unordered_map<std::uint64_t, Digest> digests_;  // by block, until it is compared
  DirtyMap changed_;
};

}  // namespace godwit::disk

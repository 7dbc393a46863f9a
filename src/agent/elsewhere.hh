#pragma once
// What this host has that disks of one vm may be made of: which block of what has which digest, by
// its indexes. Made by a worker, for one move; does not change any more.
#include <optional>
#include <vector>

#include "agent/content_file.hh"

namespace godwit::agent {

class Elsewhere final {
 public:
  struct Block {
    disk::Digest digest{};
    std::uint32_t content = 0;  // of contents()
    std::uint64_t offset = 0;
  };

  // `key`: that its digests are made with.
  explicit Elsewhere(Bytes key) : key_(std::move(key)) {}
  // As much of it as there is room for. False: there is none for more.
  bool add(Content content, const std::vector<IndexedBlock>& blocks);
  // Once, after the last.
  void sort();

  const Bytes& key() const { return key_; }
  const std::vector<Content>& contents() const { return contents_; }
  bool empty() const { return blocks_.empty(); }
  // Ascending, each once.
  std::vector<disk::Name> names() const;
  const Block* find(const disk::Digest& digest) const;

 private:
  Bytes key_;
  std::vector<Content> contents_;
  std::vector<Block> blocks_;  // by digest, each once
};

}  // namespace godwit::agent

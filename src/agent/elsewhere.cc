#include "agent/elsewhere.hh"

#include <algorithm>
#include <ranges>

namespace godwit::agent {

bool Elsewhere::add(Content content, const std::vector<IndexedBlock>& blocks) {
  const auto number = static_cast<std::uint32_t>(contents_.size());
  contents_.push_back(std::move(content));
  const std::size_t room = disk::kMostNames - blocks_.size();
  for (const IndexedBlock& block : blocks | std::views::take(static_cast<std::ptrdiff_t>(room))) {
    blocks_.push_back({.digest = block.digest, .content = number, .offset = block.offset});
  }
  return blocks_.size() < disk::kMostNames;
}

void Elsewhere::sort() {
  std::ranges::sort(blocks_, {}, &Block::digest);
  const auto again = std::ranges::unique(blocks_, {}, &Block::digest);
  blocks_.erase(again.begin(), again.end());
}

std::vector<disk::Name> Elsewhere::names() const {
  std::vector<disk::Name> names;
  for (const Block& block : blocks_) {
    const disk::Name name = disk::name_of(block.digest);
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

const Elsewhere::Block* Elsewhere::find(const disk::Digest& digest) const {
  const auto found = std::ranges::lower_bound(blocks_, digest, {}, &Block::digest);
  return found != blocks_.end() && found->digest == digest ? &*found : nullptr;
}

}  // namespace godwit::agent

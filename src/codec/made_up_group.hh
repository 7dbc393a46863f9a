#pragma once
// Test doubles: what the vms of a group share, in one thread and without waiting.
#include <map>
#include <vector>

#include "codec/group.hh"

namespace godwit::codec {

class MadeUpIndex final : public GroupIndex {
 public:
  explicit MadeUpIndex(std::size_t most) : most_(most) {}
  BytesView key() const override { return key_; }
  Found find(const Name& name, std::uint32_t member, bool offers) override {
    if (const auto at = pages_.find(name); at != pages_.end()) return {.page = at->second};
    if (!offers || pages_.size() == most_) return {};
    pages_[name] = {.member = member, .number = offered_[member]++};
    return {.page = std::nullopt, .offered = true};
  }

 private:
  Bytes key_ = Bytes(crypto::KeyedHash::kKeySize);
  std::size_t most_;
  std::map<Name, MemberPage> pages_;
  std::map<std::uint32_t, std::uint64_t> offered_;
};

using MadeUpPages = std::map<std::uint32_t, std::vector<Bytes>>;

class MadeUpReader final : public GroupReader {
 public:
  MadeUpReader(MadeUpPages& pages, std::uint32_t member, std::size_t most)
      : pages_(pages), member_(member), most_(most) {}
  bool add(BytesView page) override {
    if (pages_[member_].size() == most_) return false;
    pages_[member_].push_back(to_bytes(page));
    return true;
  }
  BytesView page(const MemberPage& which) override {
    const auto& of = pages_[which.member];
    if (which.number >= of.size()) return {};
    page_ = of[which.number];
    return page_;
  }

 private:
  MadeUpPages& pages_;
  std::uint32_t member_;
  std::size_t most_;
  Bytes page_;
};

}  // namespace godwit::codec

#include "agent/group_pages.hh"

#include <cstring>

#include "os/random.hh"

namespace godwit::agent {

using codec::MemberPage;

SharedIndex::SharedIndex(std::uint64_t most_pages)
    : key_(crypto::KeyedHash::kKeySize), most_(most_pages) {
  os::fill_random(key_);
}

std::size_t SharedIndex::HashOfName::operator()(const Name& name) const {
  std::size_t value = 0;
  std::memcpy(&value, name.data(), sizeof value);  // as good as random
  return value;
}

codec::GroupIndex::Found SharedIndex::find(const Name& name, std::uint32_t member, bool offers) {
  const std::scoped_lock lock(mutex_);
  if (const auto found = pages_.find(name); found != pages_.end()) {
    return {.page = found->second, .offered = false};
  }
  if (!offers || pages_.size() >= most_) return {};
  pages_.emplace(name, MemberPage{.member = member, .number = offered_[member]++});
  return {.page = std::nullopt, .offered = true};
}

bool SharedReader::add(BytesView page) {
  const std::scoped_lock lock(pages_->mutex_);
  if (pages_->count_ >= pages_->most_) return false;
  ++pages_->count_;
  auto& kept = pages_->members_[member_].pages;
  if (!kept) kept.emplace(page.size());
  kept->add(page);
  pages_->came_.notify_all();
  return true;
}

BytesView SharedReader::page(const MemberPage& which) {
  std::unique_lock lock(pages_->mutex_);
  const auto& self = pages_->members_[member_];
  const auto& other = pages_->members_[which.member];
  const auto is_there = [&] { return other.pages && which.number < other.pages->count(); };
  pages_->came_.wait(lock, [&] { return is_there() || other.left || self.left; });
  if (!is_there()) return {};
  if (unpacked_of_ != which.member) unpacked_ = {};
  unpacked_of_ = which.member;
  // Copied: the other goes on adding.
  page_ = to_bytes(other.pages->page(which.number, unpacked_));
  return page_;
}

void SharedReader::leave() {
  const std::scoped_lock lock(pages_->mutex_);
  pages_->members_[member_].left = true;
  pages_->came_.notify_all();
}

}  // namespace godwit::agent

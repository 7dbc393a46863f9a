#include "codec/page_store.hh"

#include "base/check.hh"

namespace godwit::codec {

PageStore::PageStore(std::size_t budget, std::size_t page_size)
    : page_size_(page_size),
      capacity_(std::min<std::size_t>(budget / page_size, kNoSlot)),
      pages_(large_memory(capacity_ * page_size)) {}

Slot PageStore::find(PageKey key) const {
  const auto found = slot_of_.find(key);
  return found == slot_of_.end() ? kNoSlot : found->second;
}

Slot PageStore::put(PageKey key, BytesView contents) {
  CHECK(capacity_ > 0 && contents.size() == page_size_);
  Slot slot = find(key);
  if (slot == kNoSlot) {
    slot = full() ? victim() : static_cast<Slot>(used_++);
    if (slot == keys_.size()) {
      keys_.push_back(key);
      used_lately_.push_back(false);
    } else {
      slot_of_.erase(keys_[slot]);
      keys_[slot] = key;
      used_lately_[slot] = false;
    }
    slot_of_.emplace(key, slot);
  } else {
    touch(slot);
  }
  std::memcpy(pages_.get() + slot * page_size_, contents.data(), page_size_);
  return slot;
}

Slot PageStore::victim() {
  while (used_lately_[hand_]) {
    used_lately_[hand_] = false;
    hand_ = static_cast<Slot>((hand_ + 1) % capacity_);
  }
  const Slot slot = hand_;
  hand_ = static_cast<Slot>((hand_ + 1) % capacity_);
  return slot;
}

}  // namespace godwit::codec

#include "net/flow_table.hh"

#include <algorithm>
#include <bit>

#include "base/check.hh"
#include "net/packet.hh"

namespace godwit::net {
namespace {

constexpr std::size_t kSlotsPerFlow = 4;  // two tuples, half of the slots free

std::uint64_t next_secret(std::uint64_t& state) {  // splitmix64 (Steele, Lea, Flood 2014)
  std::uint64_t x = state += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// As wyhash mixes: both halves of the product.
std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

}  // namespace

bool is_evictable(const Flow& flow) {
  switch (flow.state) {
    case FlowState::replied:
    case FlowState::stream:
      return false;
    case FlowState::established:
      return !flow.is_replied;
    default:
      return true;
  }
}

FlowTable::FlowTable(std::size_t most, std::uint64_t seed) {
  for (std::uint64_t& secret : secrets_) secret = next_secret(seed);
  limit(most);
}

std::uint32_t FlowTable::hash_of(const Tuple& tuple) const {
  static_assert(sizeof(Tuple) == 5 * sizeof(std::uint64_t));
  const auto words = std::bit_cast<std::array<std::uint64_t, 5>>(tuple);
  const std::uint64_t addresses = mix(words[0] ^ secrets_[0], words[1] ^ secrets_[1]) ^
                                  mix(words[2] ^ secrets_[2], words[3] ^ secrets_[3]);
  return static_cast<std::uint32_t>(mix(addresses ^ secrets_[4], words[4] ^ secrets_[5]));
}

std::size_t FlowTable::slot_of(const Tuple& tuple) const {
  const std::uint32_t hash = hash_of(tuple);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask; slots_[at].entry != 0; at = (at + 1) & mask) {
    const Slot slot = slots_[at];
    if (slot.hash != hash) continue;
    if (entries_[slot.entry / 2 - 1].flow.tuples[slot.entry % 2] == tuple) return at;
  }
  return kNowhere;
}

std::optional<FlowTable::Found> FlowTable::find(const Tuple& tuple, Instant now) {
  const std::size_t at = slot_of(tuple);
  if (at == kNowhere) return std::nullopt;
  const std::uint32_t index = slots_[at].entry / 2 - 1;
  Entry& entry = entries_[index];
  const FlowId id{index, entry.generation};
  if (entry.flow.ends <= now) {
    erase(id);
    return std::nullopt;
  }
  return Found{.id = id, .way = static_cast<Way>(slots_[at].entry % 2), .flow = &entry.flow};
}

Flow* FlowTable::at(FlowId id) {
  if (id.index >= entries_.size()) return nullptr;
  Entry& entry = entries_[id.index];
  return entry.is_used && entry.generation == id.generation ? &entry.flow : nullptr;
}

std::optional<FlowId> FlowTable::add(const Flow& flow) {
  if (size_ >= most_) {
    if (oldest_ == kNone) return std::nullopt;
    erase({oldest_, entries_[oldest_].generation});
    ++evicted_;
  }
  std::uint32_t index = 0;
  if (free_.empty()) {
    index = static_cast<std::uint32_t>(entries_.size());
    entries_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Entry& entry = entries_[index];
  entry.flow = flow;
  entry.is_used = true;
  if (is_kept_) changed(index);
  ++size_;
  const std::uint32_t number = (index + 1) * 2;
  add_slot(hash_of(flow.tuples[0]), number);
  add_slot(hash_of(flow.tuples[1]), number + 1);
  const FlowId id{index, entry.generation};
  refresh(id);
  return id;
}

void FlowTable::add_slot(std::uint32_t hash, std::uint32_t entry) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  while (slots_[at].entry != 0) at = (at + 1) & mask;
  slots_[at] = {.hash = hash, .entry = entry};
}

// Those behind move up, so that no search ends at the gap (Knuth, 6.4, algorithm R).
void FlowTable::remove_slot(const Tuple& tuple) {
  std::size_t gap = slot_of(tuple);
  CHECK(gap != kNowhere, "{} is not in the table", tuple.text());
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = (gap + 1) & mask; slots_[at].entry != 0; at = (at + 1) & mask) {
    const std::size_t wanted = slots_[at].hash & mask;
    if (((at - wanted) & mask) < ((at - gap) & mask)) continue;  // it begins behind the gap
    slots_[gap] = slots_[at];
    gap = at;
  }
  slots_[gap] = {};
}

void FlowTable::refresh(FlowId id) {
  const Entry& entry = entries_[id.index];
  if (entry.is_listed) {
    if (newest_ == id.index && is_evictable(entry.flow)) return;
    unlist(id.index);
  }
  if (is_evictable(entry.flow)) list(id.index);
}

void FlowTable::list(std::uint32_t index) {
  Entry& entry = entries_[index];
  entry.is_listed = true;
  entry.older = newest_;
  entry.newer = kNone;
  (newest_ == kNone ? oldest_ : entries_[newest_].newer) = index;
  newest_ = index;
}

void FlowTable::unlist(std::uint32_t index) {
  Entry& entry = entries_[index];
  (entry.older == kNone ? oldest_ : entries_[entry.older].newer) = entry.newer;
  (entry.newer == kNone ? newest_ : entries_[entry.newer].older) = entry.older;
  entry.is_listed = false;
}

void FlowTable::erase(FlowId id) {
  const Flow* flow = at(id);
  if (flow == nullptr) return;
  for (const Tuple& tuple : flow->tuples) remove_slot(tuple);
  Entry& entry = entries_[id.index];
  if (entry.is_listed) unlist(id.index);
  if (is_kept_ && entry.is_told) gone_.push_back(entry.flow.tuples[0]);
  entry.is_used = entry.is_told = false;
  ++entry.generation;
  free_.push_back(id.index);
  --size_;
}

bool FlowTable::forget_old(Instant now, std::size_t most_looks) {
  for (std::size_t looks = 0; looks < most_looks; ++looks) {
    if (looked_at_ >= entries_.size()) {
      looked_at_ = 0;
      return true;
    }
    const std::uint32_t index = looked_at_++;
    const Entry& entry = entries_[index];
    if (entry.is_used && entry.flow.ends <= now) erase({index, entry.generation});
  }
  return false;
}

// A place is in the list once at most: of what comes and goes there, the last is told.
void FlowTable::changed(std::uint32_t index) {
  Entry& entry = entries_[index];
  if (entry.is_untold) return;
  entry.is_untold = true;
  entry.next_untold = kNone;
  (last_untold_ == kNone ? first_untold_ : entries_[last_untold_].next_untold) = index;
  last_untold_ = index;
  ++untold_;
}

void FlowTable::begin_account() {
  end_account();
  is_kept_ = true;
  for (Entry& entry : entries_) entry.is_untold = entry.is_told = false;
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].is_used && !entries_[i].is_listed) changed(i);
  }
  for (std::uint32_t i = oldest_; i != kNone; i = entries_[i].newer) changed(i);
}

void FlowTable::end_account() {
  is_kept_ = false;
  first_untold_ = last_untold_ = kNone;
  untold_ = 0;
  gone_ = {};
}

std::optional<Tuple> FlowTable::next_gone() {
  if (gone_.empty()) return std::nullopt;
  const Tuple tuple = gone_.back();
  gone_.pop_back();
  return tuple;
}

const Flow* FlowTable::next_untold(Instant now) {
  while (first_untold_ != kNone) {
    const std::uint32_t index = first_untold_;
    Entry& entry = entries_[index];
    first_untold_ = entry.next_untold;
    if (first_untold_ == kNone) last_untold_ = kNone;
    --untold_;
    entry.is_untold = false;
    if (!entry.is_used) continue;
    if (entry.flow.ends <= now) {
      erase({index, entry.generation});
      continue;
    }
    entry.is_told = true;
    return &entry.flow;
  }
  return nullptr;
}

bool FlowTable::put(const Flow& flow) {
  const std::size_t original = slot_of(flow.tuples[0]), reply = slot_of(flow.tuples[1]);
  if (original == kNowhere && reply == kNowhere) {
    add(flow);
    return true;
  }
  if (original == kNowhere || reply == kNowhere) return false;
  const std::uint32_t number = slots_[original].entry;
  if (number % 2 != 0 || slots_[reply].entry != number + 1) return false;
  const std::uint32_t index = number / 2 - 1;
  entries_[index].flow = flow;
  const FlowId id{index, entries_[index].generation};
  refresh(id);
  touch(id);
  return true;
}

void FlowTable::remove(const Tuple& original) {
  const std::size_t at = slot_of(original);
  if (at == kNowhere || slots_[at].entry % 2 != 0) return;
  const std::uint32_t index = slots_[at].entry / 2 - 1;
  erase({index, entries_[index].generation});
}

void FlowTable::limit(std::size_t most) {
  most_ = most;
  const std::size_t room = std::max(most, entries_.size());
  entries_.reserve(room);
  free_.reserve(room);
  const std::size_t slots = std::bit_ceil(room * kSlotsPerFlow);
  if (slots == slots_.size()) return;
  slots_.assign(slots, {});
  for (std::uint32_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].is_used) continue;
    for (std::uint32_t way = 0; way < 2; ++way) {
      add_slot(hash_of(entries_[i].flow.tuples[way]), (i + 1) * 2 + way);
    }
  }
}

}  // namespace godwit::net

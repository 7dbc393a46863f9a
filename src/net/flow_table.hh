#pragma once
// The flows that there are, found by the tuple of either way. Bounded: when it is full, the oldest
// that has not come about (or is about to end) makes room; where there is none, nothing is added.
// What was answered is never lost to what is new. No memory is asked for after the start.
//
// Open addressing with linear probing; a slot keeps 32 bits of the hash, so that a look is one
// cache line here and one of the flow. Pure; owned by one thread.
#include <array>
#include <optional>
#include <vector>

#include "net/flow.hh"

namespace godwit::net {

struct FlowId {
  std::uint32_t index = 0, generation = 0;  // a place, and how many were there before
  bool operator==(const FlowId&) const = default;
};

// Whether a newer one may take its place.
bool is_evictable(const Flow& flow);

class FlowTable final {
 public:
  struct Found {
    FlowId id{};
    Way way = Way::original;
    Flow* flow = nullptr;  // until the next add() or erase()
  };
  // `seed`: a secret, so that nobody can choose tuples that collide.
  FlowTable(std::size_t most, std::uint64_t seed);

  // What has ended by `now` is gone.
  std::optional<Found> find(const Tuple& tuple, Instant now);
  bool contains(const Tuple& tuple) const { return slot_of(tuple) != kNowhere; }
  Flow* at(FlowId id);  // null: it is gone
  // Neither of its tuples may be there. Empty: it is full.
  std::optional<FlowId> add(const Flow& flow);
  // After a packet: the youngest of those that may be evicted, if it is one.
  void refresh(FlowId id);
  void erase(FlowId id);
  // After any change through a pointer, for the account.
  void touch(FlowId id) {
    if (is_kept_) changed(id.index);
  }
  // Looks at some, in a circle over all. True: it is at the end of the circle.
  bool forget_old(Instant now, std::size_t most_looks);
  // What is there beyond `most` stays until it ends.
  void limit(std::size_t most);

  // ---- for another instance's table (state.hh) ----
  // Keeps account of what that one has not been told: at first, all; those that may be evicted by
  // age.
  void begin_account();
  void end_account();
  std::size_t untold() const { return untold_ + gone_.size(); }  // at most
  // The original tuple of one that was told, and is no longer here; to be told before what is
  // untold.
  std::optional<Tuple> next_gone();
  // Null: there is none that has not ended by `now`. Until the next call of anything.
  const Flow* next_untold(Instant now);
  // As the other one had it. False: one of its tuples is of another flow. Where there is no room
  // it is passed over.
  bool put(const Flow& flow);
  void remove(const Tuple& original);

  template <class Visit>
  void for_each(Visit visit) const {
    for (std::uint32_t i = 0; i < entries_.size(); ++i) {
      if (entries_[i].is_used) visit(FlowId{i, entries_[i].generation}, entries_[i].flow);
    }
  }
  std::size_t size() const { return size_; }
  std::size_t most() const { return most_; }
  std::uint64_t evicted() const { return evicted_; }

 private:
  static constexpr std::uint32_t kNone = 0xffff'ffff;
  static constexpr std::size_t kNowhere = ~std::size_t{0};
  struct Entry {
    Flow flow{};
    std::uint32_t generation = 0;
    std::uint32_t older = kNone, newer = kNone;  // of those that may be evicted
    std::uint32_t next_untold = kNone;
    bool is_used = false, is_listed = false;
    bool is_untold = false, is_told = false;  // may both be: it has changed since
  };
  struct Slot {
    std::uint32_t hash = 0;
    std::uint32_t entry = 0;  // zero: free; else its index + 1, twice, and the way
  };

  std::uint32_t hash_of(const Tuple& tuple) const;
  std::size_t slot_of(const Tuple& tuple) const;
  void add_slot(std::uint32_t hash, std::uint32_t entry);
  void remove_slot(const Tuple& tuple);
  void list(std::uint32_t index);
  void unlist(std::uint32_t index);
  void changed(std::uint32_t index);

  std::size_t most_ = 0;
  std::array<std::uint64_t, 6> secrets_{};
  std::vector<Slot> slots_;  // a power of two, at least twice as many as there are tuples
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> free_;
  std::uint32_t oldest_ = kNone, newest_ = kNone;
  bool is_kept_ = false;                                      // an account
  std::uint32_t first_untold_ = kNone, last_untold_ = kNone;  // places, perhaps empty by now
  std::size_t untold_ = 0;                                    // of these
  std::vector<Tuple> gone_;
  std::uint32_t looked_at_ = 0;
  std::size_t size_ = 0;
  std::uint64_t evicted_ = 0;
};

}  // namespace godwit::net

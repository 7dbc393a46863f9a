#pragma once
// Who is to be ticked, and when: a heap in which everybody has one place at most, so that a tick
// touches only those that are due. Nothing is allocated but by make_room().
//
//   wake(who, instant) ── sooner than the place that it has? ──▶ moved up in the heap
//   run(now) ── who is due by then leaves the heap and is ticked; he wakes himself for whatever he
//               waits for then
#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/check.hh"
#include "base/units.hh"

namespace godwit::wire {

template <class Who>
class DueQueue final {
 public:
  // A member of who is ticked, Who::place(). At its end it leaves.
  class Place final {
   public:
    Place() = default;
    ~Place() { leave(); }
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;

    // Instant::max(): he waits for nothing.
    Instant due() const { return due_; }
    void leave() {
      if (queue_ != nullptr) queue_->remove(*this);
    }

   private:
    friend class DueQueue;
    DueQueue* queue_ = nullptr;
    std::size_t at_ = 0;  // of the heap, or of those that are ticked now
    Instant due_ = Instant::max();
    bool is_running_ = false;
  };

  // For `count` in all. More at a time than are needed: it is called for one after the other.
  void make_room(std::size_t count) {
    if (count <= heap_.capacity()) return;
    heap_.reserve(2 * count);
    running_.reserve(2 * count);
  }

  void wake(Who& who, Instant due) {
    Place& place = who.place();
    if (due >= place.due_ || place.is_running_) return;
    if (place.queue_ == nullptr) {
      place.queue_ = this;
      place.at_ = heap_.size();
      heap_.emplace_back();
    }
    place.due_ = due;
    rise(place.at_, {due, &who});
  }

  Instant next() const { return heap_.empty() ? Instant::max() : heap_.front().due; }

  // Those that are due now; who is woken meanwhile waits for the next time. tick(Who&) may end
  // anybody.
  template <class Tick>
  void run(Instant now, Tick tick) {
    CHECK(running_.empty());
    while (next() <= now) {
      Place& place = heap_.front().who->place();
      running_.push_back(heap_.front());
      take_out(0);
      place.at_ = running_.size() - 1;
      place.is_running_ = true;
    }
    for (std::size_t i = 0; i < running_.size(); ++i) {
      Who* who = running_[i].who;
      if (who == nullptr) continue;  // ended by one before
      forget(who->place());
      tick(*who);
    }
    running_.clear();
  }

 private:
  static constexpr std::size_t kChildren = 4;  // half as deep as a binary one

  struct Entry {
    Instant due{};
    Who* who = nullptr;
  };

  static void forget(Place& place) {
    place.queue_ = nullptr;
    place.due_ = Instant::max();
    place.is_running_ = false;
  }

  void remove(Place& place) {
    if (place.is_running_)
      running_[place.at_].who = nullptr;
    else
      take_out(place.at_);
    forget(place);
  }

  // The last one takes its place.
  void take_out(std::size_t at) {
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    const bool is_sooner = at > 0 && last.due < heap_[(at - 1) / kChildren].due;
    is_sooner ? rise(at, last) : sink(at, last);
  }

  void put(std::size_t at, const Entry& entry) {
    heap_[at] = entry;
    entry.who->place().at_ = at;
  }

  void rise(std::size_t at, const Entry entry) {
    while (at > 0) {
      const std::size_t parent = (at - 1) / kChildren;
      if (heap_[parent].due <= entry.due) break;
      put(at, heap_[parent]);
      at = parent;
    }
    put(at, entry);
  }

  void sink(std::size_t at, const Entry entry) {
    for (;;) {
      const std::size_t first = at * kChildren + 1;
      if (first >= heap_.size()) break;
      const auto begin = heap_.begin() + static_cast<std::ptrdiff_t>(first);
      const auto end =
          heap_.begin() + static_cast<std::ptrdiff_t>(std::min(first + kChildren, heap_.size()));
      const auto least = std::ranges::min_element(begin, end, {}, &Entry::due);
      if (entry.due <= least->due) break;
      const auto next = static_cast<std::size_t>(least - heap_.begin());
      put(at, *least);
      at = next;
    }
    put(at, entry);
  }

  std::vector<Entry> heap_;
  std::vector<Entry> running_;
};

}  // namespace godwit::wire

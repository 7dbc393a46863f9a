#pragma once
// What of a table another instance has not been told, by key (state.hh): for tables that change
// now and then. Those that change with each packet have it in their entries. Pure; a part of the
// table.
//
//   changed() ─▶ [untold] ─ next_untold() ─▶ [told] ─ removed() ─▶ [gone] ─ next_gone() ─▶
//
// What goes before it was told is not told at all, so there is never more than the table and what
// the other has.
#include <optional>
#include <set>

namespace godwit::net {

template <class Key>
class Account final {
 public:
  // changed() has to be said of all that there is.
  void begin() { end(), is_kept_ = true; }
  void end() { *this = {}; }
  void changed(const Key& key) {
    if (is_kept_) untold_.insert(key);
  }
  void removed(const Key& key) {
    if (!is_kept_) return;
    untold_.erase(key);
    if (told_.erase(key) != 0) gone_.insert(key);
  }
  // To be told before what is untold: it may be there again.
  std::optional<Key> next_gone() { return next(gone_); }
  std::size_t size() const { return untold_.size() + gone_.size(); }  // to be told
  std::optional<Key> next_untold() {
    auto key = next(untold_);
    if (key) told_.insert(*key);
    return key;
  }

 private:
  static std::optional<Key> next(std::set<Key>& from) {
    if (from.empty()) return std::nullopt;
    return from.extract(from.begin()).value();
  }

  bool is_kept_ = false;
  std::set<Key> untold_{}, told_{}, gone_{};
};

}  // namespace godwit::net

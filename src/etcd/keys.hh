#pragma once
// What somebody who publishes needs of etcd: a few keys at one revision, all below a prefix, and a
// write that happens only if certain keys are as they were read. Implemented by Client; tests play
// it in memory.
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"

namespace godwit::etcd {

struct Value {
  std::string text;
  std::int64_t revision = 0;  // of its last change ("mod_revision")
  bool operator==(const Value&) const = default;
};
using Found = std::map<std::string, Value>;  // by key; what is not there is absent

struct Write {
  std::map<std::string, std::int64_t> unchanged{};              // since this revision; 0: absent
  std::map<std::string, std::optional<std::string>> changes{};  // nothing: the key goes
};

class Keys {
 public:
  template <class T>
  using Answer = std::move_only_function<void(Result<T>)>;

  virtual ~Keys() = default;
  // Each answer comes once, from the loop, within bounded time.
  virtual void read(const std::vector<std::string>& keys, Answer<Found> answer) = 0;
  // At most `limit` of them, by key.
  virtual void list(const std::string& prefix, std::size_t limit, Answer<Found> answer) = 0;
  // All of it, or nothing: false, if one of `unchanged` has changed.
  virtual void write(const Write& write, Answer<bool> answer) = 0;
};

}  // namespace godwit::etcd

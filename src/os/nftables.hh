#pragma once
// nftables rulesets, applied as one transaction by libnftables (nft(8) without the process).
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hh"

namespace godwit::os {

// All of `ruleset` or nothing, in the calling thread's network namespace. The error has nft's own
// words, which point into the ruleset.
Result<> apply_nftables(const std::string& ruleset);

// A table of family inet, in nft(8)'s words.
struct InetTable {
  std::string name{}, objects{}, chains{};  // what is in it
  std::string kept{};                       // objects whose elements stay if they are there
  std::string elements{};                   // commands that add to `objects`
};
// Makes it, or fills one that is there anew, in one transaction. Its hooks stay: a packet that
// comes meanwhile meets the old rules or the new ones, where between a table that is deleted and
// its successor it can meet none.
Result<> write_inet_table(const InetTable& table);
Result<> remove_inet_table(const std::string& name);

// What `command` lists, as libnftables-json(5) has it.
Result<std::string> query_nftables(const std::string& command);

// Another number after each change of any of the namespace's rulesets.
Result<std::uint32_t> nftables_generation();

// In the namespace, of family inet. A query would read every element of every set.
Result<bool> has_inet_table(const std::string& name);

// The names of the namespace's tables of family netdev.
Result<std::vector<std::string>> netdev_tables();

}  // namespace godwit::os

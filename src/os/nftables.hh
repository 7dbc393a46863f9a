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

// What `command` lists, as libnftables-json(5) has it.
Result<std::string> query_nftables(const std::string& command);

// Another number after each change of any of the namespace's rulesets.
Result<std::uint32_t> nftables_generation();

// In the namespace, of family inet. A query would read every element of every set.
Result<bool> has_inet_table(const std::string& name);

// The names of the namespace's tables of family netdev.
Result<std::vector<std::string>> netdev_tables();

}  // namespace godwit::os

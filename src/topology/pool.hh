#pragma once
// Pools (CloudNet's virtual cloud pools): one tenant's network over several sites. A pool is a
// topology called pool-NAME: a switch at each site, each joined to all others by wires between
// stretched ports, and a DHCP server at the first if it has a subnet.
#include <optional>
#include <string>
#include <vector>

#include "base/ip.hh"
#include "base/result.hh"
#include "topology/model.hh"

namespace godwit::topology {

struct Pool {
  std::string name, tenant;
  std::vector<std::string> sites{};  // or hosts: one switch each; the first has the DHCP server
  std::optional<IpPrefix> subnet{};  // IPv4
  bool operator==(const Pool&) const = default;
};

std::string topology_of(const std::string& pool);
std::string switch_of(const std::string& pool, const std::string& site);

// Errors: names, no site, one twice; a subnet that is none of hosts.
Result<> check(const Pool& pool);
// As a file would have it, for parse().
nlohmann::json to_file(const Pool& pool);
// Those that there are, by name.
std::vector<Pool> pools(const Actual& actual);

// "east,west", or "+north,-west": a change. The rest stays in its order.
Result<std::vector<std::string>> changed_sites(std::vector<std::string> sites,
                                               const std::string& wish);

}  // namespace godwit::topology

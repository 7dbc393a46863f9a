#pragma once
// Where it is published at which address guests are that left their home (mapping.hh): an etcd
// cluster, and names in it for CoreDNS.
#include <string>

#include "etcd/access.hh"

namespace CLI {
class App;
}

namespace godwit::agent {

struct MappingConfig {
  etcd::Access etcd;  // no endpoints: nothing is published
  bool may_be_plain = false;
  std::string prefix = "/godwit";
  std::string dns_domain;  // empty: no names
  std::string dns_prefix = "/skydns";
  unsigned dns_ttl = 30;  // seconds

  bool is_wanted() const { return !etcd.endpoints.empty(); }
};

void add_mapping_options(CLI::App& app, MappingConfig& config);
// Throws SetupError, with what is wrong and what to do; checks that files can be read.
void check(const MappingConfig& config);

}  // namespace godwit::agent

#pragma once
// Rules of filters and NAT as operators write them: ports by their names, sets by theirs ("@web").
// Kept in these words, so that they are shown as they were said.
//
//   sets: [{name: web, members: [80, 443]}]
//   rules: [{action: allow, in: outside, protocol: tcp, to: 10.7.0.0/24, ports: "@web"}]
//   masquerade: [{out: wan, from: 10.7.0.0/24}]
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fabric/settings.hh"
#include "net/tracker.hh"

namespace godwit::fabric {

class Rules final {
 public:
  explicit Rules(std::string otherwise) : otherwise_(std::move(otherwise)) {}

  void read_filter(Fields& fields);  // sets, rules, default, most_flows
  void read_nat(Fields& fields);     // masquerade, forward, one_to_one
  void filter_to_json(nlohmann::json& object) const;
  void nat_to_json(nlohmann::json& object) const;
  void masquerade_by_default(const std::string& out);

  // True: there is nothing that a tracker would do.
  bool is_empty() const;
  Result<net::TrackerConfig> config(const PortPlaces& ports) const;

 private:
  struct Set {
    std::string name{};
    std::vector<std::string> members{};
  };
  struct Rule {
    std::string action{};
    bool log = false;
    std::vector<std::string> in{}, out{}, from{}, to{}, ports{}, source_ports{}, states{};
    std::string protocol{};
    std::vector<std::uint8_t> icmp_types{};
  };
  struct Masquerade {
    std::vector<std::string> out{}, from{};
    std::string to{}, ports{};
  };
  struct Forward {
    std::vector<std::string> in{};
    Ip address{};
    std::string protocol{}, ports{};
    Ip to{};
    std::uint16_t to_port = 0;
  };
  struct OneToOne {
    std::vector<std::string> out{};
    IpPrefix outside{}, inside{};
  };
  class Resolver;

  static nlohmann::json to_json(const Rule& rule);
  Result<> add_rules(const Resolver& names, net::FilterConfig& config) const;
  Result<> add_nat(const Resolver& names, net::NatConfig& config) const;

  std::vector<Set> sets_{};
  std::vector<Rule> rules_{};
  std::vector<Masquerade> masquerade_{};
  std::vector<Forward> forward_{};
  std::vector<OneToOne> one_to_one_{};
  std::string otherwise_;
  std::size_t most_flows_ = net::TrackerConfig{}.most_flows;
};

// What a tracker has: flows and what its rules counted, as tables.
nlohmann::json flows_of(const net::Tracker* tracker, Instant now);
nlohmann::json rule_counts_of(const net::Tracker* tracker);

}  // namespace godwit::fabric

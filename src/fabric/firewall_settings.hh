#pragma once
// Type "firewall" (net/firewall.hh): {default?, rules?, sets?, most_flows?} as rules.hh reads them,
// {pass?: [ETHERTYPE]}; two ports, `inside` and `outside` if nothing else is said.
#include <nlohmann/json.hpp>

#include "fabric/rules.hh"
#include "fabric/settings.hh"
#include "net/firewall.hh"

namespace godwit::fabric {

class FirewallSettings final : public Settings {
 public:
  std::unique_ptr<Settings> copy() const override;
  std::vector<std::string> usual_ports() const override { return {"inside", "outside"}; }
  void read(Fields& fields) override;
  void read_port(const std::string& port, Fields& fields) override;
  void forget_port(const std::string& port) override;
  Result<> check(const PortPlaces& ports) const override;
  nlohmann::json to_json() const override;
  nlohmann::json port_to_json(const std::string& port) const override;
  std::unique_ptr<net::Component> make(const PortPlaces& ports, std::uint64_t seed) const override;
  void configure(net::Component& component, const PortPlaces& ports) const override;
  nlohmann::json describe(const net::Component& component) const override;
  nlohmann::json table(const net::Component& component, std::string_view name,
                       const PortPlaces& ports, Instant now) const override;
  std::vector<std::string_view> tables() const override { return {"flows", "rules"}; }
  bool has_state() const override { return false; }
  std::uint64_t changes(const net::Component&) const override { return 0; }
  nlohmann::json state(const net::Component&, Instant) const override { return {}; }
  void restore(net::Component&, const nlohmann::json&, Instant) const override {}

 private:
  Result<net::FirewallConfig> config(const PortPlaces& ports) const;

  Rules rules_{"drop"};
  std::vector<std::uint16_t> pass_ = net::FirewallConfig{}.pass;
};

}  // namespace godwit::fabric

#pragma once
// Types "router" and "nat" (net/router.hh), which is a router with ports `inside` and `outside`
// that masquerades if nothing else is said. {routes: [{to, via | port | drop, from?}],
// most_neighbours?}, and what rules.hh reads; a port {address: [PREFIX], mac?, mtu?, shared?,
// proxy?, advertise?, dns?, relay?}.
#include <nlohmann/json.hpp>

#include "fabric/rules.hh"
#include "fabric/settings.hh"
#include "net/router.hh"

namespace godwit::fabric {

class RouterSettings final : public Settings {
 public:
  enum class Kind : std::uint8_t { router, nat };
  explicit RouterSettings(Kind kind);

  std::unique_ptr<Settings> copy() const override;
  std::vector<std::string> usual_ports() const override;
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
  std::vector<std::string_view> tables() const override;
  bool has_state() const override { return false; }
  std::uint64_t changes(const net::Component&) const override { return 0; }
  nlohmann::json state(const net::Component&, Instant) const override { return {}; }
  void restore(net::Component&, const nlohmann::json&, Instant) const override {}

  Result<net::RouterConfig> config(const PortPlaces& ports) const;

 private:
  struct Port {
    net::RouterPort settings{};  // but its MACs
    std::optional<net::Mac> mac{};
    bool is_shared = false;
  };
  struct Route {
    net::Route route{};  // but its port
    std::string port{};
    bool is_dropped = false;
  };
  nlohmann::json neighbours(const net::Router& router, const PortPlaces& ports) const;

  Kind kind_;
  std::map<std::string, Port> ports_{};
  std::vector<Route> routes_{};
  std::size_t most_neighbours_ = net::RouterConfig{}.most_neighbours;
  Rules rules_{"allow"};
};

}  // namespace godwit::fabric

#pragma once
// Type "switch" (net/switch.hh): {mirror?, macs?: [{mac, port, vlan?}], ageing_s?, most_macs?,
// snooping?}, a port {access? | trunk?, native?, isolated?, stretched?, mirrored?, flooded_per_s?}.
#include <nlohmann/json.hpp>

#include "fabric/settings.hh"
#include "net/switch.hh"

namespace godwit::fabric {

class SwitchSettings final : public Settings {
 public:
  std::unique_ptr<Settings> copy() const override;
  std::vector<std::string> usual_ports() const override { return {}; }
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
  std::vector<std::string_view> tables() const override { return {"macs"}; }
  bool has_state() const override { return false; }
  std::uint64_t changes(const net::Component&) const override { return 0; }
  nlohmann::json state(const net::Component&, Instant) const override { return {}; }
  void restore(net::Component&, const nlohmann::json&, Instant) const override {}

  net::SwitchConfig config(const PortPlaces& ports) const;

 private:
  struct Pinned {
    std::string port{};
    net::Vlan vlan = net::kUntagged;
    net::Mac mac = 0;
  };
  std::map<std::string, net::SwitchPort> ports_{};
  std::string mirror_{};  // a port; empty: none
  std::vector<Pinned> macs_{};
  std::uint32_t ageing_s_ = 300, most_macs_ = 16384;  // as net::SwitchConfig
  bool snooping_ = true;
};

}  // namespace godwit::fabric

#pragma once
// Type "dhcp" (net/dhcp_server.hh): {address, mac?, networks: [{prefix, range?, router?, dns?,
// domain?, mtu?, lease_s?, routes?: [{to, via}]}], reservations?: [{mac, address}]}; one port.
#include <nlohmann/json.hpp>

#include "fabric/settings.hh"
#include "net/dhcp_server.hh"

namespace godwit::fabric {

class DhcpSettings final : public Settings {
 public:
  std::unique_ptr<Settings> copy() const override;
  std::vector<std::string> usual_ports() const override { return {"net"}; }
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
  std::vector<std::string_view> tables() const override { return {"leases"}; }
  bool has_state() const override { return true; }
  std::uint64_t changes(const net::Component& component) const override;
  nlohmann::json state(const net::Component& component, Instant now) const override;
  void restore(net::Component& component, const nlohmann::json& state, Instant now) const override;

 private:
  net::DhcpConfig config(const PortPlaces& ports) const;

  net::DhcpConfig config_{};
  std::optional<net::Mac> mac_{};  // none: its port's
};

}  // namespace godwit::fabric

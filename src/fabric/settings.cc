#include "fabric/settings.hh"

#include "fabric/dhcp_settings.hh"
#include "fabric/firewall_settings.hh"
#include "fabric/router_settings.hh"
#include "fabric/switch_settings.hh"

namespace godwit::fabric {

net::Mac mac_of(const PortId& port) {
  constexpr net::Mac kLocal = 0x020000000000, kGroup = 0x010000000000;
  return (net::mac_at(port.bytes.data()) | kLocal) & ~kGroup;
}

std::unique_ptr<Settings> settings_of(std::string_view type) {
  if (type == "switch") return std::make_unique<SwitchSettings>();
  if (type == "router") return std::make_unique<RouterSettings>(RouterSettings::Kind::router);
  if (type == "nat") return std::make_unique<RouterSettings>(RouterSettings::Kind::nat);
  if (type == "firewall") return std::make_unique<FirewallSettings>();
  if (type == "dhcp") return std::make_unique<DhcpSettings>();
  return nullptr;
}

const std::vector<std::string_view>& component_types() {
  static const std::vector<std::string_view> kTypes{"switch", "router", "nat", "firewall", "dhcp"};
  return kTypes;
}

}  // namespace godwit::fabric

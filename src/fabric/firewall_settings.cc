#include "fabric/firewall_settings.hh"

namespace godwit::fabric {

using nlohmann::json;

std::unique_ptr<Settings> FirewallSettings::copy() const {
  return std::make_unique<FirewallSettings>(*this);
}

void FirewallSettings::read(Fields& fields) {
  rules_.read_filter(fields);
  fields.numbers("pass", pass_, 0xffff);
}

void FirewallSettings::read_port(const std::string& /*port*/, Fields& /*fields*/) {}
void FirewallSettings::forget_port(const std::string& /*port*/) {}

Result<net::FirewallConfig> FirewallSettings::config(const PortPlaces& ports) const {
  if (ports.size() != 2) return fail("a firewall has two ports: it stands in a wire");
  const auto tracker = rules_.config(ports);
  if (!tracker) return std::unexpected(tracker.error());
  return net::FirewallConfig{.ports = {ports.begin()->second.index, ports.rbegin()->second.index},
                             .filter = tracker->filter,
                             .pass = pass_,
                             .most_flows = tracker->most_flows};
}

Result<> FirewallSettings::check(const PortPlaces& ports) const {
  const auto made = config(ports);
  return made ? net::check(*made) : Result<>(std::unexpected(made.error()));
}

json FirewallSettings::to_json() const {
  json object = {{"pass", pass_}};
  rules_.filter_to_json(object);
  return object;
}

json FirewallSettings::port_to_json(const std::string& /*port*/) const { return json::object(); }

std::unique_ptr<net::Component> FirewallSettings::make(const PortPlaces& ports,
                                                       std::uint64_t seed) const {
  return std::make_unique<net::Firewall>(config(ports).value(), seed);
}

void FirewallSettings::configure(net::Component& component, const PortPlaces& ports) const {
  dynamic_cast<net::Firewall&>(component).configure(config(ports).value());
}

json FirewallSettings::describe(const net::Component& component) const {
  return {{"flows", dynamic_cast<const net::Firewall&>(component).tracker().table().size()}};
}

json FirewallSettings::table(const net::Component& component, std::string_view name,
                             const PortPlaces& /*ports*/, Instant now) const {
  const net::Tracker* tracker = &dynamic_cast<const net::Firewall&>(component).tracker();
  return name == "flows" ? flows_of(tracker, now) : rule_counts_of(tracker);
}

}  // namespace godwit::fabric

#include "session/join_messages.hh"

#include <nlohmann/json.hpp>

#include "base/id.hh"
#include "session/json_body.hh"

namespace godwit::session {

nlohmann::json to_json(const KnownHost& host) {
  return {{"host", host.name}, {"site", host.site}, {"addresses", host.addresses}};
}

Result<KnownHost> known_host_from_json(const nlohmann::json& value) {
  KnownHost host{
      .name = text_member(value, "host"), .site = text_member(value, "site"), .addresses = {}};
  if (!is_valid_name(host.name)) return fail("'{}' is not a valid host name", printable(host.name));
  if (!is_valid_name(host.site)) return fail("'{}' is not a valid site name", printable(host.site));
  const auto addresses = value.find("addresses");
  if (addresses == value.end() || !addresses->is_array()) return host;
  for (const auto& each : *addresses) {
    if (host.addresses.size() == kMaxKnownAddresses) break;
    if (!each.is_string()) return fail("an address of {} is not a text", host.name);
    const auto endpoint = os::Endpoint::parse(each.get<std::string>());
    if (!endpoint) return fail("an address of {}: {}", host.name, endpoint.error().text);
    host.addresses.push_back(endpoint->text());
  }
  return host;
}

}  // namespace godwit::session

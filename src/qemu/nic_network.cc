#include "qemu/nic_network.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

// Absent: none.
template <class T>
Result<std::vector<T>> texts(const json& object, const char* key, std::size_t most,
                             Result<T> (*parse)(std::string_view)) {
  std::vector<T> values;
  const json& list = member(object, key);
  if (list.is_null()) return values;
  if (!list.is_array() || list.size() > most) {
    return fail("'{}' is a list of at most {} texts", key, most);
  }
  for (const json& each : list) {
    const auto value = parse(each.is_string() ? each.get_ref<const std::string&>() : "");
    if (!value) return std::unexpected(value.error());
    values.push_back(*value);
  }
  return values;
}

Result<> check_address(const IpPrefix& prefix) {
  const Ip& ip = prefix.address;
  if (ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_link_local() ||
      prefix.length == 0) {
    return fail("{} is no address that a NIC can be given", prefix.text());
  }
  return {};
}

Result<IpPrefix> parse_nic_address(std::string_view text) {
  if (!text.contains('/')) return fail("'{}' needs its network's length: {}/24, say", text, text);
  return parse_ip_prefix(text);
}

}  // namespace

json to_json(const NicNetwork& network) {
  json addresses = json::array(), gateways = json::array(), resolvers = json::array();
  for (const IpPrefix& each : network.addresses) addresses.push_back(each.text());
  for (const auto& each : {network.gateway4, network.gateway6}) {
    if (each) gateways.push_back(each->text());
  }
  for (const Ip& each : network.resolvers) resolvers.push_back(each.text());
  return {{"addresses", std::move(addresses)},
          {"gateways", std::move(gateways)},
          {"resolvers", std::move(resolvers)},
          {"mtu", network.mtu}};
}

Result<NicNetwork> nic_network_from_json(const json& object) {
  auto addresses = texts(object, "addresses", kMaxNicAddresses, &parse_nic_address);
  const auto gateways = texts(object, "gateways", 2, &parse_ip);
  auto resolvers = texts(object, "resolvers", kMaxNicResolvers, &parse_ip);
  if (!addresses) return std::unexpected(addresses.error());
  if (!gateways) return std::unexpected(gateways.error());
  if (!resolvers) return std::unexpected(resolvers.error());
  if (addresses->empty()) return fail("a NIC needs an address, like 10.66.2.7/24");
  NicNetwork network{.addresses = *std::move(addresses), .resolvers = *std::move(resolvers)};
  for (const IpPrefix& each : network.addresses) {
    if (auto good = check_address(each); !good) return std::unexpected(good.error());
  }
  for (const Ip& gateway : *gateways) {
    auto& of_family = gateway.is4() ? network.gateway4 : network.gateway6;
    if (of_family) return fail("a NIC has one gateway of a family, not {} too", gateway.text());
    of_family = gateway;
  }
  if (member(object, "mtu").is_null()) return network;
  const std::uint64_t mtu = unsigned_at(object, "mtu");
  if (mtu < kMinNicMtu || mtu > kMaxNicMtu) {
    return fail("the MTU of a NIC is {} to {}", kMinNicMtu, kMaxNicMtu);
  }
  network.mtu = static_cast<unsigned>(mtu);
  return network;
}

}  // namespace godwit::qemu

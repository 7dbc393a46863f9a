#include "topology/pool.hh"

#include <algorithm>
#include <map>

#include "base/id.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;

constexpr std::string_view kPrefix = "pool-";
constexpr std::uint8_t kLeastLength = 16, kMostLength = 28;
// Of the subnet's addresses: its server's, and the first that is given to hosts. The first of all
// is left for a gateway.
constexpr std::uint32_t kServer = 2, kFirstLeased = 10;

std::string dhcp_of(const std::string& pool) { return pool + "-dhcp"; }
std::string trunk_to(const std::string& site) { return "to-" + site; }

json dhcp_server(const Pool& pool) {
  const IpPrefix& subnet = *pool.subnet;
  const std::uint32_t first = subnet.address.as4();
  const std::uint32_t last = first + (~std::uint32_t{0} >> subnet.length) - 1;
  const auto ip = [](std::uint32_t address) { return Ip::of4(address).text(); };
  return {{"type", "dhcp"},
          {"host", pool.sites.front()},
          {"address", IpPrefix{Ip::of4(first + kServer), subnet.length}.text()},
          {"networks",
           {{{"prefix", subnet.text()}, {"range", ip(first + kFirstLeased) + "-" + ip(last)}}}},
          {"ports", {{"net", json::object()}}}};
}

// Of a DHCP server, as its host shows it.
std::optional<IpPrefix> subnet_of(const json& shown) {
  const auto networks = shown.find("networks");
  if (networks == shown.end() || !networks->is_array() || networks->empty()) return std::nullopt;
  const auto prefix = parse_ip_prefix(text_at((*networks)[0], "prefix"));
  return prefix ? std::optional(*prefix) : std::nullopt;
}

}  // namespace

std::string topology_of(const std::string& pool) { return std::string(kPrefix) + pool; }
std::string switch_of(const std::string& pool, const std::string& site) {
  return pool + "-" + site;
}

Result<> check(const Pool& pool) {
  for (const std::string& name : {pool.name, pool.tenant}) {
    if (!is_valid_name(name)) return fail("'{}' is no name: use 1 to 63 of a-z, 0-9 and '-'", name);
  }
  if (pool.sites.empty()) return fail("a pool has a site at least");
  for (const std::string& site : pool.sites) {
    if (!is_valid_name(switch_of(pool.name, site) + "-" + trunk_to(site))) {
      return fail("'{}' is no site's name, or too long with the pool's", site);
    }
    if (std::ranges::count(pool.sites, site) > 1) return fail("site {} is there twice", site);
  }
  if (!pool.subnet) return {};
  const IpPrefix& subnet = *pool.subnet;
  const bool is_fitting = subnet.address.is4() && subnet.is_network() &&
                          subnet.length >= kLeastLength && subnet.length <= kMostLength;
  if (is_fitting) return {};
  return fail("{} is no IPv4 subnet of a /{} to /{}, like 10.7.0.0/24", subnet.text(), kLeastLength,
              kMostLength);
}

json to_file(const Pool& pool) {
  json components = json::object(), wires = json::array();
  for (const std::string& site : pool.sites) {
    json ports = json::object();
    for (const std::string& other : pool.sites) {
      if (other != site) ports[trunk_to(other)] = {{"stretched", true}};
      if (other > site) {
        wires.push_back({switch_of(pool.name, site) + "-" + trunk_to(other),
                         switch_of(pool.name, other) + "-" + trunk_to(site)});
      }
    }
    components[switch_of(pool.name, site)] = {{"type", "switch"}, {"host", site}, {"ports", ports}};
  }
  if (pool.subnet) {
    const std::string first = switch_of(pool.name, pool.sites.front());
    components[first]["ports"]["dhcp"] = json::object();
    components[dhcp_of(pool.name)] = dhcp_server(pool);
    wires.push_back({dhcp_of(pool.name) + "-net", first + "-dhcp"});
  }
  return {{"name", topology_of(pool.name)},
          {"tenant", pool.tenant},
          {"components", components},
          {"wires", wires}};
}

std::vector<Pool> pools(const Actual& actual) {
  std::map<std::string, Pool> found;
  std::map<std::string, std::string> dhcp_hosts;
  for (const Thing& thing : actual.components) {
    if (!thing.topology.starts_with(kPrefix)) continue;
    const std::string name = thing.topology.substr(kPrefix.size());
    Pool& pool = found[name];
    pool.name = name;
    pool.tenant = thing.tenant;
    if (text_at(thing.shown, "type") == "dhcp") {
      pool.subnet = subnet_of(thing.shown);
      dhcp_hosts[name] = thing.host;
    } else if (thing.name.starts_with(name + "-")) {
      pool.sites.push_back(thing.name.substr(name.size() + 1));
    }
  }
  std::vector<Pool> all;
  for (auto& [name, pool] : found) {
    // The site of the DHCP server's host comes first.
    const auto is_first = [&](const std::string& site) {
      return std::ranges::any_of(actual.components, [&](const Thing& thing) {
        return thing.name == switch_of(name, site) && thing.host == dhcp_hosts[name];
      });
    };
    std::ranges::sort(pool.sites, {},
                      [&](const std::string& site) { return std::pair(!is_first(site), site); });
    all.push_back(std::move(pool));
  }
  return all;
}

Result<std::vector<std::string>> changed_sites(std::vector<std::string> sites,
                                               const std::string& wish) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = wish.find(',', begin);
    words.push_back(wish.substr(begin, end - begin));
  }
  const auto is_change = [](const std::string& word) {
    return word.starts_with('+') || word.starts_with('-');
  };
  const auto changes = std::ranges::count_if(words, is_change);
  if (changes == 0) return words;
  if (changes != std::ssize(words)) {
    return fail("'{}' is neither all sites, like east,west, nor a change, like +north,-west", wish);
  }
  for (const std::string& word : words) {
    const std::string site = word.substr(1);
    const bool is_there = std::ranges::find(sites, site) != sites.end();
    if (word[0] == '-' && !is_there) return fail("the pool is not at {}", site);
    if (word[0] == '-') std::erase(sites, site);
    if (word[0] == '+' && !is_there) sites.push_back(site);
  }
  return sites;
}

}  // namespace godwit::topology

#include "os/address_rewriting.hh"

#include <array>
#include <nlohmann/json.hpp>

#include "os/nftables.hh"
#include "os/quoted_rewriting.hh"

namespace godwit::os {
namespace {

constexpr const char* kTable = "godwit_translate";

// Neighbour discovery (RFC 4861) is between two on one link, whatever addresses it is about. What
// comes by lo was routed when it was sent, and is delivered here whatever its address becomes.
constexpr const char* kChains = R"(
  chain arriving {
    type filter hook prerouting priority -450;
    ip daddr set ip daddr map @arrive4
    ip6 daddr set ip6 daddr map @arrive6
  }
  chain departing {
    type filter hook prerouting priority -140;
    iif lo return
    icmpv6 type 133-137 return
    ip daddr set ip daddr map @depart4
    ip6 daddr set ip6 daddr map @depart6
  }
  chain sending {
    type route hook output priority -140;
    icmpv6 type 133-137 return
    ip daddr set ip daddr map @depart4
    ip6 daddr set ip6 daddr map @depart6
  }
  chain reporting {
    type filter hook output priority -450;
  }
)";

std::map<Ip, Ip> inverse(const std::map<Ip, Ip>& map) {
  std::map<Ip, Ip> inverse;
  for (const auto& [from, to] : map) inverse[to] = from;
  return inverse;
}

// The maps of the table, each once for IPv4 and once for IPv6.
struct NamedMap {
  const char* name;
  std::map<Ip, Ip> content;
};
std::array<NamedMap, 4> maps_of(const Rewrites& rewrites) {
  return {{{"depart", rewrites.depart},
           {"arrive", rewrites.arrive},
           {"staged", rewrites.staged},
           {"quoted", inverse(rewrites.depart)}}};
}

// "add element inet godwit_translate depart4 { 10.1.1.20 : 10.1.4.200, }", or nothing.
template <class Write>
std::string elements(const char* verb, const char* map, const std::map<Ip, Ip>& content, bool is4,
                     Write&& write) {
  std::string list;
  for (const auto& [from, to] : content) {
    if (from.is4() == is4) list += write(from, to) + ", ";
  }
  if (list.empty()) return {};
  return fmt::format("{} element inet {} {}{} {{ {} }}\n", verb, kTable, map, is4 ? 4 : 6, list);
}

std::string added(const char* map, const std::map<Ip, Ip>& content) {
  const auto pair = [](const Ip& from, const Ip& to) {
    return fmt::format("{} : {}", from.text(), to.text());
  };
  return elements("add", map, content, true, pair) + elements("add", map, content, false, pair);
}

std::string removed(const char* map, const std::map<Ip, Ip>& content) {
  const auto key = [](const Ip& from, const Ip&) { return from.text(); };
  return elements("delete", map, content, true, key) + elements("delete", map, content, false, key);
}

// What `a` has and `b` has not, or not so.
std::map<Ip, Ip> without(const std::map<Ip, Ip>& a, const std::map<Ip, Ip>& b) {
  std::map<Ip, Ip> rest;
  for (const auto& [from, to] : a) {
    const auto found = b.find(from);
    if (found == b.end() || found->second != to) rest.emplace(from, to);
  }
  return rest;
}

Result<> make_table(const Rewrites& wanted) {
  InetTable table{.name = kTable, .chains = kChains};
  for (const auto& [name, content] : maps_of(wanted)) {
    table.objects += fmt::format("  map {}4 {{ type ipv4_addr : ipv4_addr; counter; }}\n", name);
    table.objects += fmt::format("  map {}6 {{ type ipv6_addr : ipv6_addr; counter; }}\n", name);
    table.elements += added(name, content);
  }
  if (auto done = write_inet_table(table); !done) return done;
  for (const char* chain : {"arriving", "reporting"}) {
    auto done = add_quoted_rules({kTable, chain, "quoted4", "quoted6"});
    if (!done) {
      (void)AddressRewriting::remove();
      return done;
    }
  }
  return {};
}

Result<> change_table(const Rewrites& known, const Rewrites& wanted) {
  const auto before = maps_of(known);
  const auto after = maps_of(wanted);
  std::string ruleset;
  for (std::size_t i = 0; i < after.size(); ++i) {
    ruleset += removed(after[i].name, without(before[i].content, after[i].content));
  }
  for (std::size_t i = 0; i < after.size(); ++i) {
    ruleset += added(after[i].name, without(after[i].content, before[i].content));
  }
  return ruleset.empty() ? Result<>{} : apply_nftables(ruleset);
}

// An element of a map, and how many packets it rewrote: [{"elem": {"val": KEY, "counter":
// {"packets": N}}}, VALUE], or [KEY, VALUE].
struct Element {
  Ip from{}, to{};
  std::uint64_t packets = 0;
};
Result<Element> element_of(const nlohmann::json& json) {
  Element element;
  nlohmann::json key = json.at(0);
  if (key.is_object()) {
    element.packets = key.at("elem").value("/counter/packets"_json_pointer, std::uint64_t{0});
    key = nlohmann::json(key.at("elem").at("val"));
  }
  const auto from = parse_ip(key.get<std::string>());
  const auto to = parse_ip(json.at(1).get<std::string>());
  if (!from || !to) return fail("nftables shows '{}', which is no map of addresses", json.dump());
  element.from = *from;
  element.to = *to;
  return element;
}

struct Table {
  std::map<std::string, std::vector<Element>, std::less<>> elements{};  // by map, both families
  std::string chains{};                                                 // their rules
};
Result<Table> read_table() try {
  const auto tables = query_nftables("list tables inet");
  if (!tables) return std::unexpected(tables.error());
  Table table;
  if (tables->find(fmt::format("\"{}\"", kTable)) == std::string::npos) return table;
  const auto text = query_nftables(fmt::format("list table inet {}", kTable));
  if (!text) return std::unexpected(text.error());
  const auto json = nlohmann::json::parse(*text);
  for (const auto& object : json.at("nftables")) {
    if (object.contains("rule")) {
      const auto& rule = object.at("rule");
      table.chains += rule.at("chain").dump() + rule.at("expr").dump() + '\n';
    }
    if (!object.contains("map")) continue;
    const auto& map = object.at("map");
    std::string name = map.at("name");
    name.pop_back();  // the family
    for (const auto& each : map.value("elem", nlohmann::json::array())) {
      const auto element = element_of(each);
      if (!element) return std::unexpected(element.error());
      table.elements[name].push_back(*element);
    }
  }
  return table;
} catch (const nlohmann::json::exception& error) {
  return fail("read the nftables table {}: {}", kTable, error.what());
}

Rewrites rewrites_of(const Table& table) {
  Rewrites rewrites;
  for (const auto& [name, all] : table.elements) {
    auto* map = name == "depart"   ? &rewrites.depart
                : name == "arrive" ? &rewrites.arrive
                : name == "staged" ? &rewrites.staged
                                   : nullptr;
    for (const Element& each : all) {
      if (map != nullptr) map->emplace(each.from, each.to);
    }
  }
  return rewrites;
}

}  // namespace

Result<> AddressRewriting::set(const Rewrites& wanted) {
  generation_.reset();
  if (known_ && change_table(*known_, wanted)) {
    known_ = wanted;
    return {};
  }
  // It is ours: whoever has changed it is overruled. At first it is another process's, or none.
  const auto last = known_ ? Result<Rewrites>(*known_) : read();
  known_.reset();
  auto done = make_table(wanted);
  if (done) {
    known_ = wanted;
  } else if (last && make_table(*last)) {
    known_ = *last;
  }
  if (const auto table = known_ ? read_table() : Result<Table>()) chains_ = table->chains;
  return done;
}

Result<bool> AddressRewriting::is_as_set() {
  const auto now = nftables_generation();
  if (!now) return std::unexpected(now.error());
  if (known_ && generation_ == *now) return true;
  const auto table = read_table();
  if (!table) return std::unexpected(table.error());
  if (!known_ || rewrites_of(*table) != *known_ || table->chains != chains_) return false;
  generation_ = *now;
  return true;
}

Result<Rewrites> AddressRewriting::read() {
  const auto table = read_table();
  if (!table) return std::unexpected(table.error());
  return rewrites_of(*table);
}

Result<std::map<Ip, std::uint64_t>> AddressRewriting::departed() {
  const auto table = read_table();
  if (!table) return std::unexpected(table.error());
  std::map<Ip, std::uint64_t> packets;
  const auto& elements = table->elements;
  if (const auto found = elements.find("depart"); found != elements.end()) {
    for (const Element& each : found->second) packets[each.from] = each.packets;
  }
  return packets;
}

Result<> AddressRewriting::remove() { return remove_inet_table(kTable); }

}  // namespace godwit::os

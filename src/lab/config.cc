#include "lab/config.hh"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <initializer_list>
#include <set>

#include "base/id.hh"
#include "lab/address_plan.hh"

namespace godwit::lab {

// The queue holds the bandwidth-delay product of the round trip scaled down to one way: 40 ms at
// 400 Mbit/s are 2 MB, enough that one TCP connection fills the link.
const std::string_view kDefaultLab = R"(sites:
  east: { hosts: [e1, client] }
  west: { hosts: [w1] }
links:
  east-west:
    between: [east, west]
    rate: 400mbit
    delay: 20ms
    queue: 40ms
)";

namespace {

// Walks the document; every complaint goes through fail(), which knows the place.
class Parser final {
 public:
  Parser(LabConfig& lab, std::string_view source) : lab_(lab), source_(source) {}

  void document(const YAML::Node& root) {
    require_map(root, "a lab");
    for (const auto& entry : keys(root, {"sites", "links", "seed"})) {
      if (entry.key == "sites") sites(entry.value);
      if (entry.key == "seed") lab_.seed = seed(entry.value);
    }
    if (lab_.sites.empty())
      fail(root, "the lab has no sites: write sites: {{ east: {{ hosts: [e1] }} }}");
    if (root["links"]) links(root["links"]);
  }

  [[noreturn]] void fail_at(const YAML::Mark& mark, const std::string& text) {
    fail_setup("{}:{}:{}: {}", source_, mark.line + 1, mark.column + 1, text);
  }

 private:
  struct Entry {
    std::string key;
    YAML::Node key_node;
    YAML::Node value;
  };

  template <class... Args>
  [[noreturn]] void fail(const YAML::Node& at, fmt::format_string<Args...> format, Args&&... args) {
    fail_at(at.Mark(), fmt::format(format, std::forward<Args>(args)...));
  }

  void require_map(const YAML::Node& node, std::string_view what) {
    if (!node.IsMap()) fail(node, "{} is a map: write `key: value` lines", what);
  }

  // The entries of a map in order; a key twice or not in `known` (if any) is refused.
  std::vector<Entry> keys(const YAML::Node& map, std::initializer_list<std::string_view> known) {
    std::vector<Entry> entries;
    std::set<std::string> seen;
    for (const auto& pair : map) {
      const auto key = scalar(pair.first, "a key");
      if (!seen.insert(key).second) fail(pair.first, "'{}' is here twice: remove one", key);
      if (known.size() > 0 && std::find(known.begin(), known.end(), key) == known.end()) {
        fail(pair.first, "unknown key '{}': use one of {}", key, fmt::join(known, ", "));
      }
      entries.push_back({key, pair.first, pair.second});
    }
    return entries;
  }

  std::string scalar(const YAML::Node& node, std::string_view what) {
    if (!node.IsScalar()) fail(node, "{} is a single word or number here", what);
    return node.Scalar();
  }

  std::string name(const YAML::Node& node, std::string_view what) {
    const auto text = scalar(node, what);
    if (!is_valid_name(text)) {
      fail(node,
           "'{}' cannot name {}: use 1 to 63 of a-z, 0-9 and -, a letter or digit at both ends",
           text, what);
    }
    return text;
  }

  std::uint64_t seed(const YAML::Node& node) {
    try {
      return node.as<std::uint64_t>();
    } catch (const YAML::Exception&) {
      fail(node, "the seed is a whole number, like seed: 7");
    }
  }

  Nanoseconds duration(const YAML::Node& node) {
    const auto time = parse_duration(scalar(node, "a duration"));
    if (!time) fail(node, "{}", time.error().text);
    return *time;
  }

  void sites(const YAML::Node& node) {
    require_map(node, "`sites`");
    for (const auto& entry : keys(node, {})) {
      lab_.sites.push_back(name(entry.key_node, "a site"));
      require_map(entry.value, fmt::format("site {}", entry.key));
      lab_.networks[entry.key] = network(entry);
      const YAML::Node hosts = entry.value["hosts"];
      if (!hosts || !hosts.IsSequence()) {
        fail(entry.value, "site {} has no list of hosts: write hosts: [e1, e2]", entry.key);
      }
      for (const auto& host : hosts) add_host(host, entry.key);
    }
    if (lab_.sites.size() > kMaxSites)
      fail(node, "{} sites: at most {}", lab_.sites.size(), kMaxSites);
    if (lab_.hosts.empty()) fail(node, "no site has a host: write hosts: [e1]");
    if (lab_.hosts.size() > kMaxHosts)
      fail(node, "{} hosts: at most {}", lab_.hosts.size(), kMaxHosts);
  }

  SiteNetwork network(const Entry& site) {
    SiteNetwork network;
    for (const auto& setting : keys(site.value, {"hosts", "nat", "nat-timeout", "ip", "router"})) {
      if (setting.key == "nat") {
        network.nat = one_of<Nat>(setting.value, {{"none", Nat::none},
                                                  {"port-restricted", Nat::port_restricted},
                                                  {"symmetric", Nat::symmetric}});
      } else if (setting.key == "nat-timeout") {
        network.nat_timeout = duration(setting.value);
        if (network.nat_timeout < seconds(1) || network.nat_timeout > std::chrono::hours(24)) {
          fail(setting.value, "a NAT forgets a flow after 1s to 24h");
        }
      } else if (setting.key == "ip") {
        network.ip = one_of<IpFamilies>(
            setting.value,
            {{"ipv4", IpFamilies::ipv4}, {"ipv6", IpFamilies::ipv6}, {"both", IpFamilies::both}});
      } else if (setting.key == "router") {
        network.router_has_agent = one_of<bool>(setting.value, {{"agent", true}});
        check_router_name(site.key, setting.value);
      }
    }
    if (network.nat == Nat::none) return network;
    if (network.router_has_agent) {
      fail(site.value["router"], "site {}: its NAT hides its router's agent: leave one out",
           site.key);
    }
    if (network.ip != IpFamilies::ipv4_announced && network.ip != IpFamilies::ipv4) {
      fail(site.value, "site {}: its NAT translates IPv4: leave `ip` out", site.key);
    }
    network.ip = IpFamilies::ipv4;
    return network;
  }

  void check_router_name(const std::string& site, const YAML::Node& at) {
    const std::string host = router_name(site);
    if (!is_valid_name(host))
      fail(at, "'{}' is too long for the name of its agent: name the site shorter", host);
  }

  template <class Choice>
  Choice one_of(const YAML::Node& node,
                std::initializer_list<std::pair<std::string_view, Choice>> choices) {
    const auto word = scalar(node, "a choice");
    std::string known;
    for (const auto& [text, choice] : choices) {
      if (word == text) return choice;
      known += fmt::format("{}{}", known.empty() ? "" : ", ", text);
    }
    fail(node, "'{}' is none of {}", word, known);
  }

  void add_host(const YAML::Node& node, const std::string& site) {
    const auto host = name(node, "a host");
    if (host.starts_with("router-"))
      fail(node, "'{}': names with router- are the sites' routers", host);
    for (const Host& other : lab_.hosts) {
      if (other.name == host)
        fail(node, "host {} is already in site {}: names are unique", host, other.site);
    }
    lab_.hosts.push_back({host, site});
  }

  void links(const YAML::Node& node) {
    require_map(node, "`links`");
    for (const auto& entry : keys(node, {})) {
      name(entry.key_node, "a link");
      require_map(entry.value, fmt::format("link {}", entry.key));
      link(entry);
    }
    if (lab_.links.size() > kMaxLinks)
      fail(node, "{} links: at most {}", lab_.links.size(), kMaxLinks);
  }

  void link(const Entry& entry) {
    Link link{.name = entry.key, .sites = {}, .quality = {}, .cuts = {}};
    link.sites = ends(entry);
    for (const auto& setting : keys(entry.value, {})) {
      if (setting.key == "between" || setting.key == "toward") continue;
      if (setting.key == "cuts") {
        link.cuts = cuts(setting.value);
        continue;
      }
      for (LinkQuality& quality : link.quality) set(quality, setting);
    }
    if (entry.value["toward"]) toward(entry.value["toward"], link);
    lab_.links.push_back(std::move(link));
  }

  std::array<std::string, 2> ends(const Entry& entry) {
    const YAML::Node between = entry.value["between"];
    if (!between || !between.IsSequence() || between.size() != 2) {
      fail(between ? between : entry.value, "link {} joins two sites: write between: [east, west]",
           entry.key);
    }
    std::array<std::string, 2> sites;
    for (std::size_t i = 0; i < 2; ++i) sites[i] = known_site(between[i], lab_.sites);
    if (sites[0] == sites[1]) fail(between, "link {} joins site {} to itself", entry.key, sites[0]);
    return sites;
  }

  template <class Sites>
  std::string known_site(const YAML::Node& node, const Sites& sites) {
    const auto site = scalar(node, "a site");
    if (std::find(sites.begin(), sites.end(), site) == sites.end()) {
      fail(node, "there is no site '{}' here: use one of {}", site, fmt::join(sites, ", "));
    }
    return site;
  }

  void set(LinkQuality& quality, const Entry& setting) {
    const auto done = set_link_quality(quality, setting.key, scalar(setting.value, setting.key));
    if (!done) fail(setting.value, "{}: {}", setting.key, done.error().text);
  }

  void toward(const YAML::Node& node, Link& link) {
    require_map(node, "`toward`");
    for (const auto& direction : keys(node, {})) {
      const bool to_first = known_site(direction.key_node, link.sites) == link.sites[0];
      require_map(direction.value, direction.key);
      for (const auto& setting : keys(direction.value, {}))
        set(link.quality[to_first ? 1 : 0], setting);
    }
  }

  std::vector<ScriptedCut> cuts(const YAML::Node& node) {
    if (!node.IsSequence()) fail(node, "`cuts` is a list: write cuts: [ {{ at: 30s, for: 5s }} ]");
    std::vector<ScriptedCut> cuts;
    for (const auto& cut : node) {
      require_map(cut, "a cut");
      keys(cut, {"at", "for"});
      if (!cut["at"] || !cut["for"])
        fail(cut, "a cut has a start and a length: {{ at: 30s, for: 5s }}");
      cuts.push_back({duration(cut["at"]), duration(cut["for"])});
    }
    return cuts;
  }

  LabConfig& lab_;
  std::string_view source_;
};

}  // namespace

Result<LabConfig> parse_lab(std::string_view yaml, std::string_view source) {
  LabConfig lab;
  Parser parser(lab, source);
  try {
    if (yaml.size() > kMaxConfigBytes)
      fail_setup("{}: more than {}", source, to_text(ByteCount{kMaxConfigBytes}));
    try {
      parser.document(YAML::Load(std::string(yaml)));
    } catch (const YAML::Exception& error) {
      parser.fail_at(error.mark, fmt::format("not YAML: {}", error.msg));
    }
  } catch (const SetupError& error) {
    return std::unexpected(Error{error.what()});
  }
  return lab;
}

}  // namespace godwit::lab

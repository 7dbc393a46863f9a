// fabric.yaml, as JSON, to a Fabric: all that is wrong with it is told at once.
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>

#include "translate/fabric.hh"

namespace godwit::translate {
namespace {

using nlohmann::json;

constexpr std::array<const char*, 3> kSections = {"name", "tiers", "devices"};
constexpr std::array<const char*, 7> kSettings = {"tier",     "up",      "hosts", "networks",
                                                  "locators", "outside", "agent"};
constexpr const char* kHostTier = "host";

class Parser final {
 public:
  std::expected<Fabric, std::vector<Problem>> parse(const json& file) {
    if (!file.is_object()) {
      problem("", "a fabric is a mapping of {}", fmt::join(kSections, ", "));
      return std::unexpected(problems_);
    }
    check_keys(file, "", kSections);
    if (file.contains("name")) fabric_.name = text_of(file["name"]);
    read_tiers(file.value("tiers", json()));
    read_devices(file.value("devices", json()));
    if (problems_.empty()) check_ways();
    if (!problems_.empty()) return std::unexpected(problems_);
    return fabric_;
  }

 private:
  template <class... Args>
  void problem(std::string where, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back({std::move(where), fmt::format(format, std::forward<Args>(args)...)});
  }

  static std::string text_of(const json& value) {
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "" : value.dump();
  }

  void check_keys(const json& object, const std::string& where, const auto& known) {
    for (const auto& [key, value] : object.items()) {
      if (std::ranges::find(known, key) != known.end()) continue;
      problem(pointer_below(where, key), "'{}' is none of {}", key, fmt::join(known, ", "));
    }
  }

  // A list of texts; nothing is an empty one.
  std::vector<std::string> texts(const json& object, const char* key, const std::string& where) {
    const json list = object.value(key, json::array());
    if (!list.is_array()) {
      problem(pointer_below(where, key), "'{}' is a list, like {}: [a, b]", key, key);
      return {};
    }
    std::vector<std::string> texts;
    for (const json& item : list) texts.push_back(text_of(item));
    return texts;
  }

  void read_tiers(const json& tiers) {
    fabric_.tiers = {kHostTier};
    if (!tiers.is_array() || tiers.empty()) {
      return problem("/tiers", "name the tiers of devices, lowest first: tiers: [edge, core]");
    }
    for (std::size_t i = 0; i < tiers.size(); ++i) {
      const std::string tier = text_of(tiers[i]);
      const bool is_known = std::ranges::find(fabric_.tiers, tier) != fabric_.tiers.end();
      if (tier.empty() || is_known) {
        problem(pointer_below("/tiers", std::to_string(i)), "'{}' is {}", tier,
                tier == kHostTier ? "the tier of the agents' hosts: name those of devices"
                                  : "no new name of a tier");
      }
      fabric_.tiers.push_back(tier);
    }
    if (fabric_.tiers.size() > kMostTiers) {
      problem("/tiers", "{} tiers are too many: at most {}", fabric_.tiers.size() - 1,
              kMostTiers - 1);
    }
  }

  // Devices first, then what joins them, as that may name one further down.
  void read_devices(const json& devices) {
    if (!devices.is_object() || devices.empty()) {
      return problem("/devices",
                     "'devices' is a mapping of names to settings, like devices: {{ "
                     "edge1: {{ tier: edge, hosts: [h1] }} }}");
    }
    for (const auto& [name, settings] : devices.items()) {
      read_device(name, settings, pointer_below("/devices", name));
    }
    for (const auto& [name, settings] : devices.items()) {
      if (settings.is_object()) join(name, settings, pointer_below("/devices", name));
    }
    if (fabric_.devices.size() > kMostDevices) {
      problem("/devices", "{} devices and hosts are too many: at most {}", fabric_.devices.size(),
              kMostDevices);
    }
  }

  void read_device(const std::string& name, const json& settings, const std::string& where) {
    if (!settings.is_object()) return problem(where, "device '{}' needs a tier", name);
    check_keys(settings, where, kSettings);
    const auto tier = std::ranges::find(fabric_.tiers, text_of(settings.value("tier", json())));
    if (tier == fabric_.tiers.end() || tier == fabric_.tiers.begin()) {
      problem(pointer_below(where, "tier"), "device '{}' is of no tier: one of {}", name,
              fmt::join(fabric_.tiers.begin() + 1, fabric_.tiers.end(), ", "));
    }
    Device device{.name = name,
                  .agent = settings.contains("agent") ? text_of(settings["agent"]) : name,
                  .tier = static_cast<std::size_t>(tier - fabric_.tiers.begin())};
    device.networks = networks(settings, "networks", where);
    device.locators = networks(settings, "locators", where);
    for (const IpPrefix& each : device.locators) {
      const bool is_within = std::ranges::any_of(device.networks, [&](const IpPrefix& network) {
        return network.contains(each.address) && network.length <= each.length;
      });
      if (!is_within) {
        problem(pointer_below(where, "locators"), "{} is not a part of the networks of '{}'",
                each.text(), name);
      }
    }
    if (const json outside = settings.value("outside", json(false)); outside.is_boolean()) {
      device.is_outside = outside.get<bool>();
    } else {
      problem(pointer_below(where, "outside"), "'outside' is true or false");
    }
    by_name_[name] = fabric_.devices.size();
    fabric_.devices.push_back(std::move(device));
  }

  std::vector<IpPrefix> networks(const json& settings, const char* key, const std::string& where) {
    std::vector<IpPrefix> networks;
    for (const std::string& text : texts(settings, key, where)) {
      const auto network = parse_ip_prefix(text);
      if (network && network->is_network()) {
        networks.push_back(*network);
      } else {
        problem(pointer_below(where, key), "'{}' is no network: {}", text,
                network ? "it is one of " + network->network().text() : "like 10.1.1.0/24");
      }
    }
    return networks;
  }

  void join(const std::string& name, const json& settings, const std::string& where) {
    const DeviceIndex here = by_name_.at(name);
    for (const std::string& up : texts(settings, "up", where)) {
      const auto found = by_name_.find(up);
      if (found == by_name_.end() || fabric_.devices[found->second].is_host()) {
        problem(pointer_below(where, "up"), "there is no device '{}'", up);
      } else if (fabric_.devices[found->second].tier <= fabric_.devices[here].tier) {
        problem(pointer_below(where, "up"), "'{}' is not of a tier above that of '{}'", up, name);
      } else {
        join(here, found->second);
      }
    }
    for (const std::string& host : texts(settings, "hosts", where)) {
      const auto [found, is_new] = by_name_.try_emplace(host, fabric_.devices.size());
      if (is_new) fabric_.devices.push_back({.name = host, .agent = host});
      if (fabric_.devices[found->second].is_host()) {
        join(here, found->second);
      } else {
        problem(pointer_below(where, "hosts"), "'{}' is a device", host);
      }
    }
  }

  void join(DeviceIndex a, DeviceIndex b) {
    fabric_.devices[a].neighbours.push_back(b);
    fabric_.devices[b].neighbours.push_back(a);
  }

  // A network has one place, two edges that share one have the same hosts, and all reach all.
  void check_ways() {
    const auto hops = distances(fabric_, {0});
    std::vector<DeviceIndex> with_networks;
    for (DeviceIndex i = 0; i < fabric_.devices.size(); ++i) {
      const Device& device = fabric_.devices[i];
      if (hops[i] == kUnreachable && !device.is_host()) {
        problem(pointer_below("/devices", device.name), "'{}' is not joined to '{}' by any way",
                device.name, fabric_.devices[0].name);
      }
      if (device.networks.empty()) continue;
      for (const DeviceIndex other : with_networks) check_networks(device, fabric_.devices[other]);
      with_networks.push_back(i);
    }
  }

  void check_networks(const Device& a, const Device& b) {
    for (const IpPrefix& mine : a.networks) {
      for (const IpPrefix& other : b.networks) {
        const bool overlaps = mine.contains(other.address) || other.contains(mine.address);
        if (!overlaps || (mine == other && hosts_of(a) == hosts_of(b))) continue;
        problem(pointer_below("/devices", a.name) + "/networks",
                "{} is at '{}' too: two devices have one network only if they have the same hosts",
                mine.text(), b.name);
      }
    }
  }

  std::vector<DeviceIndex> hosts_of(const Device& device) const {
    std::vector<DeviceIndex> hosts;
    for (const DeviceIndex each : device.neighbours) {
      if (fabric_.devices[each].is_host()) hosts.push_back(each);
    }
    std::ranges::sort(hosts);
    return hosts;
  }

  Fabric fabric_;
  std::map<std::string, DeviceIndex> by_name_;
  std::vector<Problem> problems_;
};

}  // namespace

std::expected<Fabric, std::vector<Problem>> parse_fabric(const json& file) {
  return Parser().parse(file);
}

}  // namespace godwit::translate

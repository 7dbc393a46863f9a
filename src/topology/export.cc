#include "topology/export.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/host_name.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMiB = 1 << 20;

// Without quotes where YAML, of any version, takes it for a text.
std::string scalar(const std::string& text) {
  if (text.empty()) return "\"\"";
  static const std::set<std::string> kWords = {"true", "false", "null", "yes", "no",
                                               "on",   "off",   "y",    "n",   "~"};
  const auto all = [&](std::string_view characters) {
    return text.find_first_not_of(characters) == std::string::npos;
  };
  const bool is_number = all("0123456789.eE+-_") && text.front() < 'A';
  const bool is_plain = !is_number && text.front() != '-' && !kWords.contains(text) &&
                        all("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./");
  return is_plain ? text : json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string flow(const json& value) {
  std::vector<std::string> parts;
  if (value.is_object()) {
    for (const auto& [key, member] : value.items()) {
      parts.push_back(scalar(key) + ": " + flow(member));
    }
    return fmt::format("{{{}}}", fmt::join(parts, ", "));
  }
  if (value.is_array()) {
    for (const json& each : value) parts.push_back(flow(each));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
  return value.is_string() ? scalar(value.get<std::string>()) : value.dump();
}

json without(json object, std::initializer_list<const char*> keys) {
  for (const char* key : keys) object.erase(key);
  return object;
}

class Writer final {
 public:
  explicit Writer(const Actual& actual) : actual_(actual) {}

  std::string text(const std::string& name) {
    if (!name.empty()) out_ += fmt::format("name: {}\n", scalar(name));
    write_hosts();
    section("components", actual_.components, [this](const Thing& each) { component(each); });
    std::vector<Thing> ports = actual_.ports;
    std::erase_if(ports, [](const Thing& port) {
      return !text_at(port.shown, "component").empty() || !text_at(port.shown, "vm").empty();
    });
    section("ports", ports, [this](const Thing& each) { port(each); });
    section("vms", actual_.vms, [this](const Thing& each) { vm(each); });
    write_wires();
    return out_;
  }

 private:
  void write_hosts() {
    for (const Host& host : actual_.hosts) {
      out_ += fmt::format("# host {}, site {}{}\n", host.name, host.site,
                          host.is_up ? "" : ": does not answer");
    }
  }

  template <class Write>
  void section(const char* name, const std::vector<Thing>& things, Write write) {
    if (things.empty()) return;
    std::map<std::string, int> count;
    for (const Thing& each : things) ++count[each.name];
    out_ += fmt::format("{}:\n", name);
    for (const Thing& each : things) {
      const bool is_unique = count[each.name] == 1;
      out_ += fmt::format("  {}:\n", scalar(is_unique ? each.name : each.host + "/" + each.name));
      if (is_unique) member("host", each.host);
      if (each.tenant != "default") member("tenant", each.tenant);
      write(each);
    }
  }

  void member(std::string_view key, const json& value, std::string_view comment = {}) {
    out_ += fmt::format("    {}: {}{}\n", key, flow(value),
                        comment.empty() ? "" : fmt::format("  # {}", comment));
  }

  void component(const Thing& component) {
    const json settings = without(component.shown, {"id", "name", "tenant", "topology", "ports"});
    for (const auto& [key, value] : settings.items()) member(key, value);
    const json ports = component.shown.value("ports", json::array());
    if (ports.empty()) return;
    out_ += "    ports:\n";
    for (const json& port : ports) {
      out_ += fmt::format("      {}: {}\n", scalar(text_at(port, "name")),
                          flow(without(port, {"id", "index", "name"})));
    }
  }

  void port(const Thing& port) {
    const std::string kind = text_at(port.shown, "kind");
    member("kind", kind, text_at(port.shown, "state"));
    for (const char* key : {"bridge", "address"}) {
      if (const auto text = text_at(port.shown, key); !text.empty()) member(key, text);
    }
    if (port.shown.value("masquerade", json()) == true) member("masquerade", true);
    const std::string interface = text_at(port.shown, "interface");
    if (kind != "nic" && interface != port.name && !interface.empty()) {
      member("interface", interface);
    }
  }

  static std::string size(const json& bytes) {
    const auto count = bytes.is_number_unsigned() ? bytes.get<std::uint64_t>() : 0;
    return fmt::format("{}MiB", (count + kMiB - 1) / kMiB);
  }

  void vm(const Thing& vm) {
    const json& shown = vm.shown;
    member("memory", size(shown.value("memory_bytes", json())), text_at(shown, "state"));
    for (const char* key :
         {"cpus", "cpu_model", "kernel", "initrd", "append", "image", "guest_agent", "tpm"}) {
      const json value = shown.value(key, json());
      if (!value.is_null() && value != "" && value != false) member(key, value);
    }
    if (shown.value("uefi_bytes", json()) != 0 && shown.contains("uefi_bytes")) {
      member("firmware", "uefi");
    }
    json nics = json::array(), disks = json::array();
    for (const json& nic : shown.value("nics", json::array())) {
      nics.push_back({{"port", text_at(nic, "name")}, {"mac", text_at(nic, "mac")}});
    }
    for (const json& disk : shown.value("disks", json::array())) {
      if (text_at(disk, "bus") == "pflash") continue;  // of the firmware
      disks.push_back(
          {{"name", text_at(disk, "name")}, {"size", size(disk.value("size_bytes", json()))}});
    }
    if (!nics.empty()) member("nics", nics);
    if (!disks.empty()) member("disks", disks);
  }

  void write_wires() {
    const auto is_ours = [](const Wire& wire) { return !is_foreign(wire.b.host); };
    if (std::ranges::any_of(actual_.wires, is_ours)) out_ += "wires:\n";
    for (const Wire& wire : actual_.wires) {
      const json rtt = wire.shown.value("rtt_ms", json());
      const double ms = rtt.is_number() ? rtt.get<double>() : 0;
      // One to another fleet is made by its operator too: a file cannot.
      out_ += fmt::format("  {}- [{}, {}]  # {}{}\n", is_ours(wire) ? "" : "# ", wire.a.text(),
                          wire.b.text(), text_at(wire.shown, "state"),
                          ms > 0 ? fmt::format(", {:.1f} ms", ms) : "");
    }
  }

  const Actual& actual_;
  std::string out_;
};

}  // namespace

Actual part_of(const Actual& actual, const std::string& topology) {
  Actual part{.hosts = actual.hosts, .components = {}, .ports = {}, .vms = {}, .wires = {}};
  const auto is_of = [&](const auto& each) { return each.topology == topology; };
  std::ranges::copy_if(actual.components, std::back_inserter(part.components), is_of);
  std::ranges::copy_if(actual.ports, std::back_inserter(part.ports), is_of);
  std::ranges::copy_if(actual.wires, std::back_inserter(part.wires), is_of);
  std::ranges::copy_if(actual.vms, std::back_inserter(part.vms), [&](const Thing& vm) {
    return std::ranges::any_of(part.ports, [&](const Thing& port) {
      return port.host == vm.host && text_at(port.shown, "vm") == vm.name;
    });
  });
  return part;
}

std::string to_yaml(const Actual& actual, const std::string& name) {
  return Writer(actual).text(name);
}

}  // namespace godwit::topology

// The picture: DOT, which Graphviz draws.
#include <fmt/format.h>

#include <map>
#include <set>

#include "topology/export.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;

std::string quote(const std::string& text) {
  return json(text).dump(-1, ' ', false, json::error_handler_t::replace);
}

const char* color_of(const std::string& state) {
  if (state == "up" || state == "local" || state == "running" || state == "live") return "#2e7d32";
  if (state == "connecting" || state == "paused" || state == "held" || state == "forwarding") {
    return "#ef6c00";
  }
  return "#c62828";
}

class Picture final {
 public:
  explicit Picture(const Actual& actual) : actual_(actual) {
    for (const Thing& port : actual.ports) {
      const std::string vm = text_at(port.shown, "vm");
      const std::string component = text_at(port.shown, "component");
      owner_[{port.host, port.name}] = !component.empty() ? node("component", port.host, component)
                                       : !vm.empty()      ? node("vm", port.host, vm)
                                                          : node("port", port.host, port.name);
    }
  }

  std::string dot() {
    out_ =
        "graph godwit {\n"
        "  layout=dot; rankdir=LR; compound=true; nodesep=0.35; ranksep=1.1;\n"
        "  graph [fontname=\"Helvetica\", style=\"rounded\", color=\"#90a4ae\"];\n"
        "  node [fontname=\"Helvetica\", fontsize=11, shape=box, style=\"rounded,filled\", "
        "fillcolor=white];\n"
        "  edge [fontname=\"Helvetica\", fontsize=9, penwidth=1.6];\n";
    std::map<std::string, std::vector<const Host*>> sites;
    for (const Host& host : actual_.hosts) sites[host.site].push_back(&host);
    for (const auto& [site, hosts] : sites) {
      out_ += fmt::format("  subgraph {} {{\n    label={}; bgcolor=\"#eceff1\";\n",
                          quote("cluster site " + site), quote("site " + site));
      for (const Host* host : hosts) write_host(*host);
      out_ += "  }\n";
    }
    for (const Wire& wire : actual_.wires) write_wire(wire);
    return out_ + "}\n";
  }

 private:
  static std::string node(const char* kind, const std::string& host, const std::string& name) {
    return fmt::format("{} {}/{}", kind, host, name);
  }

  void write_node(const std::string& id, const std::string& label, const char* more) {
    out_ += fmt::format("      {} [label={}{}];\n", quote(id), quote(label), more);
    known_.insert(id);
  }

  void write_host(const Host& host) {
    out_ += fmt::format("    subgraph {} {{\n      label={}; bgcolor=white;{}\n",
                        quote("cluster host " + host.name),
                        quote("host " + host.name + (host.is_up ? "" : ": does not answer")),
                        host.is_up ? "" : " fontcolor=\"#c62828\"; color=\"#c62828\";");
    const std::size_t before = known_.size();
    for (const Thing& each : actual_.components) {
      if (each.host != host.name) continue;
      write_node(node("component", each.host, each.name),
                 each.name + "\n" + text_at(each.shown, "type"), ", fillcolor=\"#e3f2fd\"");
    }
    for (const Thing& each : actual_.vms) {
      if (each.host != host.name) continue;
      const std::string state = text_at(each.shown, "state");
      write_node(node("vm", each.host, each.name), each.name + "\nvm, " + state,
                 state == "running" ? ", fillcolor=\"#e8f5e9\"" : ", fillcolor=\"#ffebee\"");
    }
    for (const Thing& each : actual_.ports) {
      const std::string id = node("port", each.host, each.name);
      if (each.host != host.name || owner_[{each.host, each.name}] != id) continue;
      const std::string address = text_at(each.shown, "address");
      write_node(
          id,
          each.name + "\n" + text_at(each.shown, "kind") + (address.empty() ? "" : " " + address),
          ", shape=ellipse");
    }
    if (known_.size() == before) {  // Graphviz draws no cluster of nothing
      out_ += fmt::format("      {} [style=invis, label=\"\"];\n", quote("host " + host.name));
    }
    out_ += "    }\n";
  }

  // One that is of no thing shown, as of a host that does not answer.
  std::string end(const PortPlace& port) {
    const auto found = owner_.find(port);
    const std::string id =
        found == owner_.end() ? node("port", port.host, port.port) : found->second;
    if (!known_.contains(id)) write_node(id, port.text(), ", shape=ellipse, style=dashed");
    return id;
  }

  // What a port is called beyond what its end is called.
  static std::string short_name(const std::string& id, const PortPlace& port) {
    const std::string owner = id.substr(id.find('/') + 1);
    if (owner == port.port) return {};
    return port.port.starts_with(owner + "-") ? port.port.substr(owner.size() + 1) : port.port;
  }

  void write_wire(const Wire& wire) {
    const std::string a = end(wire.a), b = end(wire.b);
    const std::string state = text_at(wire.shown, "state");
    const json rtt = wire.shown.value("rtt_ms", json());
    std::string label = state == "up" || state == "local" ? "" : state;
    if (rtt.is_number() && rtt.get<double>() > 0) {
      label += fmt::format("{}{:.1f} ms", label.empty() ? "" : ", ", rtt.get<double>());
    }
    out_ += fmt::format("  {} -- {} [color=\"{}\", label={}, taillabel={}, headlabel={}{}];\n",
                        quote(a), quote(b), color_of(state), quote(label),
                        quote(short_name(a, wire.a)), quote(short_name(b, wire.b)),
                        state == "up" || state == "local" ? "" : ", style=dashed");
  }

  const Actual& actual_;
  std::map<PortPlace, std::string> owner_;
  std::set<std::string> known_;
  std::string out_;
};

}  // namespace

std::string to_dot(const Actual& actual) { return Picture(actual).dot(); }

}  // namespace godwit::topology

#include "topology/plan.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>

#include "topology/difference.hh"
#include "topology/places.hh"

namespace godwit::topology {
namespace {

using nlohmann::json;

constexpr std::size_t kMostInterface = 15;  // IFNAMSIZ: a longer one is called otherwise

std::string path_of(const char* collection, const std::string& name) {
  return std::string("/v1/") + collection + "/" + name;  // names need no escapes
}

class Planner final {
 public:
  Planner(const Desired& desired, const Actual& actual)
      : desired_(desired), actual_(actual), places_(desired, actual, plan_.problems) {
    for (const Thing& port : actual.ports) {
      ports_of_component_[{port.host, text_at(port.shown, "component")}].push_back(&port);
      ports_of_vm_[{port.host, text_at(port.shown, "vm")}].push_back(&port);
    }
    for (const WantedThing& vm : desired.vms) wanted_vms_.emplace(vm.name, vm.tenant);
    for (std::size_t i = 0; i < places_.components().size(); ++i) {
      wanted_components_.emplace(places_.components()[i], desired.components[i].name);
    }
  }

  Plan plan() {
    if (!plan_.problems.empty()) return std::move(plan_);
    plan_ports();
    plan_components();
    plan_vms();
    plan_wires();
    prune_wires();
    prune_vms();
    prune_ports();
    prune_components();
    if (!plan_.problems.empty()) plan_.steps.clear();
    return in_order(std::move(plan_));
  }

 private:
  static Plan in_order(Plan plan) {
    std::map<Phase, std::vector<Step>> phases;
    for (Step& step : plan.steps) phases[step.phase].push_back(std::move(step));
    plan.steps.clear();
    for (auto& [phase, steps] : phases) {
      plan.steps.insert(plan.steps.end(), std::make_move_iterator(steps.begin()),
                        std::make_move_iterator(steps.end()));
    }
    return plan;
  }

  void problem(const std::string& where, std::string text) {
    plan_.problems.push_back({where, std::move(text)});
  }
  void step(Phase phase, bool prune, const std::string& host, std::string what, json request) {
    plan_.steps.push_back({phase, prune, host, std::move(what), std::move(request)});
  }
  bool is_ours(const std::string& topology) const { return topology == desired_.name; }

  json body_of(const WantedThing& thing) const {
    json body = thing.settings;
    body["name"] = thing.name;
    body["tenant"] = thing.tenant;
    body["topology"] = desired_.name;
    return body;
  }

  // Cuts what is at a port, if this topology made it. False: it did not, and that is a problem.
  bool clear_port(const PortPlace& port, const std::string& where) {
    const Wire* wire = places_.wire(port);
    if (wire == nullptr || cut_.contains(wire)) return true;
    if (!is_ours(wire->topology)) {
      const PortPlace& other = wire->a == port ? wire->b : wire->a;
      problem(where, fmt::format("port {0} has a wire to {1} that topology {2} did not make: first "
                                 "godwit disconnect {0} {1}",
                                 port.text(), other.text(), desired_.name));
      return false;
    }
    cut(*wire, false);
    return true;
  }

  void cut(const Wire& wire, bool prune) {
    if (!cut_.insert(&wire).second) return;
    step(Phase::cut, prune, wire.a.host,
         fmt::format("disconnect {} and {}", wire.a.text(), wire.b.text()),
         {{"method", "DELETE"},
          {"path", "/v1/wires"},
          {"body", {{"a", wire.a.text()}, {"b", wire.b.text()}}}});
  }

  // ---- what is to be ----

  void plan_ports() {
    for (std::size_t i = 0; i < desired_.ports.size(); ++i) {
      const WantedThing& wanted = desired_.ports[i];
      const PortPlace place{places_.ports()[i], wanted.name};
      const Thing* there = places_.port(place);
      const json add = {{"method", "POST"}, {"path", "/v1/ports"}, {"body", body_of(wanted)}};
      if (there == nullptr) {
        step(Phase::make, false, place.host, fmt::format("add port {}", place.text()), add);
        continue;
      }
      if (is_as_wanted(wanted, *there)) continue;
      if (!is_ours(there->topology) || !text_at(there->shown, "vm").empty()) {
        problem(wanted.where, fmt::format("there is another port {0}, of kind {1} and tenant {2}: "
                                          "first godwit --at {3} port rm {4}",
                                          place.text(), text_at(there->shown, "kind"),
                                          there->tenant, place.host, place.port));
        continue;
      }
      if (!clear_port(place, wanted.where)) continue;
      remove_port(*there, false);
      step(Phase::make, false, place.host, fmt::format("add port {} anew", place.text()), add);
    }
  }

  // What the file does not say of it is as it is where nobody says it.
  bool is_whole(const Thing& there) const { return desired_.is_whole && is_ours(there.topology); }

  bool is_as_wanted(const WantedThing& wanted, const Thing& there) const {
    json settings = wanted.settings, whole = json::object();
    if (!settings.contains("kind")) settings["kind"] = "nic";
    if (is_whole(there)) whole = {{"bridge", ""}, {"address", ""}, {"masquerade", false}};
    if (is_whole(there) && settings["kind"] != "nic") whole["interface"] = wanted.name;
    whole.update(settings);
    for (json* each : {&settings, &whole}) {
      if (text_at(*each, "interface").size() > kMostInterface) each->erase("interface");
    }
    return there.tenant == wanted.tenant && differing(settings, whole, there.shown).empty();
  }

  void plan_components() {
    for (std::size_t i = 0; i < desired_.components.size(); ++i) {
      const WantedThing& wanted = desired_.components[i];
      const std::string& host = places_.components()[i];
      const Thing* there = places_.component(host, wanted.name);
      const std::string place = host + "/" + wanted.name;
      if (there == nullptr) {
        step(Phase::make, false, host, fmt::format("add component {}", place),
             {{"method", "POST"}, {"path", "/v1/components"}, {"body", body_of(wanted)}});
        continue;
      }
      if (there->tenant != wanted.tenant || !covers(wanted.settings.value("type", json("switch")),
                                                    there->shown.value("type", json()))) {
        problem(wanted.where, fmt::format("there is another component {0}, a {1} of tenant {2}: "
                                          "first godwit --at {3} component rm {4}",
                                          place, text_at(there->shown, "type"), there->tenant, host,
                                          wanted.name));
        continue;
      }
      change_component(wanted, *there);
      if (is_whole(*there) || wanted.settings.contains("ports")) prune_ports_of(*there);
    }
  }

  void change_component(const WantedThing& wanted, const Thing& there) {
    std::set<std::string> made;
    for (const Thing* port : ports_at(ports_of_component_, there)) {
      if (is_whole(*port)) made.insert(port->name.substr(there.name.size() + 1));
    }
    auto change = difference(wanted, there.shown, is_whole(there), made);
    if (!change) return;
    change->settings["topology"] = desired_.name;  // of ports that are added
    step(Phase::make, false, there.host,
         fmt::format("change component {}/{}: {}", there.host, there.name,
                     fmt::join(change->members, ", ")),
         {{"method", "POST"},
          {"path", path_of("components", there.name)},
          {"body", std::move(change->settings)}});
  }

  void plan_vms() {
    for (std::size_t i = 0; i < desired_.vms.size(); ++i) {
      const WantedThing& wanted = desired_.vms[i];
      if (places_.vm(wanted.name, wanted.tenant) != nullptr) continue;
      step(Phase::run, false, places_.vms()[i],
           fmt::format("run vm {}/{}", places_.vms()[i], wanted.name),
           {{"method", "POST"}, {"path", "/v1/vms"}, {"body", body_of(wanted)}});
    }
  }

  void plan_wires() {
    for (const auto& [a, b, wanted] : places_.wires()) {
      const Wire* there = places_.wire(a);
      if (there != nullptr && there->is_at(b) && !cut_.contains(there)) {
        kept_.insert(there);
        continue;
      }
      if (!clear_port(a, wanted->where) || !clear_port(b, wanted->where)) continue;
      step(Phase::connect, false, a.host, fmt::format("connect {} and {}", a.text(), b.text()),
           {{"method", "POST"},
            {"path", "/v1/wires"},
            {"body", {{"a", a.text()}, {"b", b.text()}, {"topology", desired_.name}}}});
    }
  }

  // ---- what goes ----

  void prune_wires() {
    for (const Wire& wire : actual_.wires) {
      if (is_ours(wire.topology) && !kept_.contains(&wire)) cut(wire, true);
    }
  }

  // Its wire goes too, or it has none.
  bool may_go(const PortPlace& port, const std::string& what) {
    const Wire* wire = places_.wire(port);
    if (wire == nullptr || cut_.contains(wire)) return true;
    if (is_ours(wire->topology) && !kept_.contains(wire)) return true;  // prune_wires() comes yet
    const PortPlace& other = wire->a == port ? wire->b : wire->a;
    plan_.notes.push_back(
        fmt::format("{} stays: its port {} has a wire to {} that topology {} did not make", what,
                    port.text(), other.text(), desired_.name));
    return false;
  }

  void prune_ports_of(const Thing& component) {
    json gone = json::array();
    for (const Thing* port : ports_at(ports_of_component_, component)) {
      const PortPlace place{port->host, port->name};
      if (!is_ours(port->topology) || places_.is_wanted(place)) continue;
      if (!may_go(place, "port " + place.text())) continue;
      gone.push_back(port->name.substr(component.name.size() + 1));
    }
    if (gone.empty()) return;
    step(Phase::remove, true, component.host,
         fmt::format("remove ports of component {}/{}: {}", component.host, component.name,
                     gone.dump()),
         {{"method", "POST"},
          {"path", path_of("components", component.name)},
          {"body", {{"remove_ports", gone}}}});
  }

  void prune_vms() {
    for (const Thing& vm : actual_.vms) {
      const auto& ports = ports_at(ports_of_vm_, vm);
      const bool is_made =
          std::ranges::any_of(ports, [this](const Thing* port) { return is_ours(port->topology); });
      if (!is_made || wanted_vms_.contains({vm.name, vm.tenant})) continue;
      const bool is_free = std::ranges::all_of(ports, [&](const Thing* port) {
        return may_go({port->host, port->name}, "vm " + vm.host + "/" + vm.name);
      });
      if (!is_free) continue;
      gone_vms_.insert(vm.host + "/" + vm.name);
      const std::string path = path_of("vms", vm.name);
      step(Phase::stop, true, vm.host, fmt::format("stop vm {}/{}", vm.host, vm.name),
           {{"method", "POST"}, {"path", path + "/stop"}, {"body", {{"force", true}}}});
      step(Phase::erase, true, vm.host,
           fmt::format("remove vm {}/{}, but not its disks", vm.host, vm.name),
           {{"method", "DELETE"}, {"path", path}, {"query", {{"disks", "keep"}}}});
    }
  }

  void prune_ports() {
    for (const Thing& port : actual_.ports) {
      const PortPlace place{port.host, port.name};
      if (!is_ours(port.topology) || places_.is_wanted(place)) continue;
      if (!text_at(port.shown, "component").empty()) continue;
      const std::string vm = text_at(port.shown, "vm");
      if (!vm.empty() && !gone_vms_.contains(port.host + "/" + vm)) continue;
      if (may_go(place, "port " + place.text())) remove_port(port, true);
    }
  }

  void remove_port(const Thing& port, bool prune) {
    step(Phase::remove, prune, port.host, fmt::format("remove port {}/{}", port.host, port.name),
         {{"method", "DELETE"}, {"path", path_of("ports", port.name)}});
  }

  void prune_components() {
    for (const Thing& component : actual_.components) {
      if (!is_ours(component.topology)) continue;
      if (wanted_components_.contains({component.host, component.name})) continue;
      const std::string place = component.host + "/" + component.name;
      const auto& ports = ports_at(ports_of_component_, component);
      if (!std::ranges::all_of(ports, [&](const Thing* port) {
            return may_go({port->host, port->name}, "component " + place);
          })) {
        continue;
      }
      step(Phase::remove, true, component.host, fmt::format("remove component {}", place),
           {{"method", "DELETE"}, {"path", path_of("components", component.name)}});
    }
  }

  // By host and name.
  using Owned = std::map<std::pair<std::string, std::string>, std::vector<const Thing*>>;
  static const std::vector<const Thing*>& ports_at(const Owned& owned, const Thing& owner) {
    static const std::vector<const Thing*> kNone;
    const auto found = owned.find({owner.host, owner.name});
    return found == owned.end() ? kNone : found->second;
  }

  Plan plan_;  // first: the others add problems
  const Desired& desired_;
  const Actual& actual_;
  Places places_;
  Owned ports_of_component_, ports_of_vm_;
  std::set<std::pair<std::string, std::string>> wanted_vms_;         // name, tenant
  std::set<std::pair<std::string, std::string>> wanted_components_;  // host, name
  std::set<const Wire*> cut_, kept_;
  std::set<std::string> gone_vms_;
};

}  // namespace

Plan plan(const Desired& desired, const Actual& actual) { return Planner(desired, actual).plan(); }

}  // namespace godwit::topology

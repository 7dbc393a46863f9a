// godwit pool ls|show|add|set|rm|attach|detach: one tenant's network over several sites.
#include <fmt/ranges.h>

#include <algorithm>
#include <ostream>

#include "cli/fleet_state.hh"
#include "cli/options.hh"
#include "cli/table.hh"
#include "cli/topology_settings.hh"
#include "topology/desired.hh"
#include "topology/pool.hh"

namespace godwit::cli {
namespace {

using topology::Actual;
using topology::Desired;
using topology::Plan;
using topology::Pool;
using topology::Step;
using topology::Thing;

struct PoolWish {
  std::string name, tenant, sites, subnet, port;
};

template <class Value>
Value need(Result<Value> result) {
  if (!result) throw Failure(ExitStatus::usage, result.error().text);
  return *std::move(result);
}

json to_json(const Pool& pool) {
  return {{"name", pool.name},
          {"tenant", pool.tenant},
          {"sites", pool.sites},
          {"subnet", pool.subnet ? json(pool.subnet->text()) : json()}};
}

std::optional<Pool> find_pool(const Actual& actual, const std::string& name) {
  const auto all = topology::pools(actual);
  const auto found = std::ranges::find(all, name, &Pool::name);
  return found != all.end() ? std::optional(*found) : std::nullopt;
}

Pool pool_called(const Actual& actual, const std::string& name) {
  if (auto found = find_pool(actual, name)) return *found;
  throw Failure(ExitStatus::failed, fmt::format("there is no pool '{}'; see godwit pool ls", name));
}

// All steps, those too that remove what is no part of it any more.
void make_so(Context& context, Desired desired, const Actual& actual) {
  desired.is_whole = false;  // what a pool does not say of its parts is its operator's to say
  auto problems = read_settings(desired);
  Plan plan = topology::plan(desired, actual);
  problems.insert(problems.end(), plan.problems.begin(), plan.problems.end());
  if (!problems.empty()) throw Failure(ExitStatus::refused, problems.front().text);
  if (!plan.notes.empty()) {
    throw Failure(ExitStatus::refused,
                  fmt::format("{}; nothing was changed", fmt::join(plan.notes, "\n")));
  }
  take_all(context, plan.steps);
}

void make_so(Context& context, const Pool& pool, const Actual& actual) {
  if (auto good = topology::check(pool); !good) {
    throw Failure(ExitStatus::usage, good.error().text);
  }
  make_so(context, topology::parse(topology::to_file(pool), "").value(), actual);
}

void tell_of(Context& context, const Pool& pool, std::string_view what) {
  if (context.as_json) return context.print_json(to_json(pool));
  context.say(fmt::format("pool {} {}, at {}", pool.name, what, fmt::join(pool.sites, ", ")));
}

void create_pool(Context& context, const PoolWish& wish) {
  const Actual actual = ask_fleet(context);
  Pool pool{.name = wish.name, .tenant = wish.tenant.empty() ? wish.name : wish.tenant};
  pool.sites = need(topology::changed_sites({}, wish.sites));
  if (!wish.subnet.empty()) pool.subnet = need(parse_ip_prefix(wish.subnet));
  if (const auto same = find_pool(actual, pool.name)) {
    if (same->tenant != pool.tenant || same->subnet != pool.subnet ||
        !std::ranges::is_permutation(same->sites, pool.sites)) {
      throw Failure(ExitStatus::failed, fmt::format("there is another pool '{0}': godwit pool set "
                                                    "{0} --sites changes where it is",
                                                    pool.name));
    }
    pool = *same;  // repeated: what is missing of it is made
  }
  make_so(context, pool, actual);
  tell_of(context, pool, "added");
}

void change_pool(Context& context, const PoolWish& wish) {
  const Actual actual = ask_fleet(context);
  Pool pool = pool_called(actual, wish.name);
  pool.sites = need(topology::changed_sites(pool.sites, wish.sites));
  make_so(context, pool, actual);
  tell_of(context, pool, "changed");
}

void remove_pool(Context& context, const PoolWish& wish) {
  const Actual actual = ask_fleet(context);
  if (const auto pool = find_pool(actual, wish.name)) {
    Desired nothing;
    nothing.name = topology::topology_of(pool->name);
    nothing.tenant = pool->tenant;
    make_so(context, std::move(nothing), actual);
  }
  context.say(fmt::format("pool {} removed", wish.name));
}

// The site's switch at which a port of this host is to be: that of its host, or of its site.
const Thing& switch_near(const Actual& actual, const Pool& pool, const std::string& host) {
  const auto at = std::ranges::find(actual.hosts, host, &topology::Host::name);
  const std::string site = at != actual.hosts.end() ? at->site : "";
  const Thing* near = nullptr;
  for (const Thing& thing : actual.components) {
    if (thing.topology != topology::topology_of(pool.name)) continue;
    const bool is_here = thing.host == host && thing.shown.value("type", "") == "switch";
    if (is_here) return thing;
    if (thing.name == topology::switch_of(pool.name, site)) near = &thing;
  }
  if (near != nullptr) return *near;
  throw Failure(ExitStatus::failed,
                fmt::format("pool {0} is at {1}, and port's host {2} at site {3}: godwit pool set "
                            "{0} --sites +{3}",
                            pool.name, fmt::join(pool.sites, ", "), host, site));
}

const Thing& port_called(const Actual& actual, const std::string& text) {
  const std::size_t slash = text.find('/');
  std::vector<const Thing*> found;
  for (const Thing& port : actual.ports) {
    const bool is_it = slash == std::string::npos ? port.name == text
                                                  : port.host == text.substr(0, slash) &&
                                                        port.name == text.substr(slash + 1);
    if (is_it) found.push_back(&port);
  }
  if (found.size() == 1) return *found.front();
  throw Failure(ExitStatus::failed,
                found.empty()
                    ? fmt::format("there is no port '{}'; see godwit port ls", text)
                    : fmt::format("several hosts have a port '{0}': write HOST/{0}", text));
}

// What puts a port into the pool, at the switch near it: a port of its own there, and a wire; or
// takes them away again.
std::vector<Step> steps_of(const Thing& port, const Thing& near, bool joins) {
  const json made = {{"ports", {{{"name", port.name}}}}}, removed = {{"remove_ports", {port.name}}};
  const json ends = {{"a", port.host + "/" + port.name},
                     {"b", fmt::format("{}/{}-{}", near.host, near.name, port.name)}};
  return {
      {.phase = topology::Phase::make,
       .host = near.host,
       .what = fmt::format("port {} of switch {}", port.name, near.name),
       .request = {{"method", "POST"},
                   {"path", path_of("components", near.name)},
                   {"body", joins ? made : removed}}},
      {.phase = joins ? topology::Phase::connect : topology::Phase::cut,
       .host = near.host,
       .what = fmt::format("the wire of {}", port.name),
       .request = {{"method", joins ? "POST" : "DELETE"}, {"path", "/v1/wires"}, {"body", ends}}}};
}

void attach_port(Context& context, const PoolWish& wish, bool joins) {
  const Actual actual = ask_fleet(context);
  const Pool pool = pool_called(actual, wish.name);
  const Thing& port = port_called(actual, wish.port);
  if (port.tenant != pool.tenant) {
    throw Failure(ExitStatus::failed, fmt::format("port {} is of tenant {}, pool {} of {}",
                                                  port.name, port.tenant, pool.name, pool.tenant));
  }
  const Thing& near = switch_near(actual, pool, port.host);
  const bool is_in = std::ranges::any_of(actual.ports, [&](const Thing& each) {
    return each.host == near.host && each.name == near.name + "-" + port.name;
  });
  if (joins || is_in) take_all(context, steps_of(port, near, joins));
  context.say(fmt::format("port {} is {} pool {}", port.name, joins ? "in" : "not in", pool.name));
}

void list_pools(Context& context) {
  json rows = json::array();
  Table table({{"POOL"}, {"TENANT"}, {"SITES"}, {"SUBNET"}});
  for (const Pool& pool : topology::pools(ask_fleet(context))) {
    rows.push_back(to_json(pool));
    table.row({pool.name, pool.tenant, fmt::format("{}", fmt::join(pool.sites, ",")),
               pool.subnet ? pool.subnet->text() : "-"});
  }
  if (context.as_json) return context.print_json(rows);
  context.io.out << table.text("no pools");
}

// Its wires: trunks between sites, and what is in it.
void show_pool(Context& context, const std::string& name) {
  const Actual actual = ask_fleet(context);
  const Pool pool = pool_called(actual, name);
  json wires = json::array();
  Table table({{"AT"}, {"HAS"}, {"STATE"}});
  const auto is_of_pool = [&](const topology::PortPlace& place) {
    const auto port = std::ranges::find_if(actual.ports, [&](const Thing& each) {
      return each.host == place.host && each.name == place.port;
    });
    if (port == actual.ports.end()) return false;
    return std::ranges::any_of(actual.components, [&](const Thing& each) {
      return each.host == place.host && each.name == text_of(port->shown, "component") &&
             each.topology == topology::topology_of(pool.name);
    });
  };
  for (const topology::Wire& wire : actual.wires) {
    const bool is_reversed = !is_of_pool(wire.a);
    if (is_reversed && !is_of_pool(wire.b)) continue;
    const auto& [at, has] = is_reversed ? std::pair(wire.b, wire.a) : std::pair(wire.a, wire.b);
    const std::string state = text_of(wire.shown, "state");
    wires.push_back({{"at", at.text()}, {"has", has.text()}, {"state", state}});
    table.row({at.text(), has.text(), state});
  }
  if (context.as_json) {
    json shown = to_json(pool);
    shown["wires"] = wires;
    return context.print_json(shown);
  }
  context.io.out << pairs({{"pool", pool.name},
                           {"tenant", pool.tenant},
                           {"sites", fmt::format("{}", fmt::join(pool.sites, ", "))},
                           {"subnet", pool.subnet ? pool.subnet->text() : "-"}})
                 << '\n'
                 << table.text("no wires");
}

}  // namespace

void add_pool(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("pool", "Networks of one tenant over several sites")
                   ->require_subcommand(1);
  const auto wish = std::make_shared<PoolWish>();
  const auto add_on = [&](const char* verb, const char* help) {
    auto* command = noun->add_subcommand(verb, help);
    add_name(*command, "POOL", wish->name, "Its name")->required();
    return command;
  };
  auto* ls = noun->add_subcommand("ls", "List the pools of the fleet");
  add_json(*ls, context);
  ls->callback([&context] { list_pools(context); });
  auto* show_verb = add_on("show", "Show where a pool is, and what is in it");
  add_json(*show_verb, context);
  show_verb->callback([&context, wish] { show_pool(context, wish->name); });

  auto* add = add_on("add", "Add a pool: a switch at each site, joined to all others");
  add->add_option("--sites", wish->sites, "Sites or hosts: east,west")->required();
  add->add_option("--subnet", wish->subnet, "With a DHCP server for these addresses: 10.7.0.0/24");
  add_name(*add, "--tenant", wish->tenant, "Whose it is (default: the pool's name)")
      ->type_name("TENANT");
  add_json(*add, context);
  add->callback([&context, wish] { create_pool(context, *wish); });

  auto* set = add_on("set", "Change where a pool is; what runs in it goes on");
  set->add_option("--sites", wish->sites, "All of them: east,west; or a change: +north,-west")
      ->required();
  add_json(*set, context);
  set->callback([&context, wish] { change_pool(context, *wish); });

  auto* rm = add_on("rm", "Remove a pool that nothing is in any more");
  rm->callback([&context, wish] { remove_pool(context, *wish); });

  for (const bool joins : {true, false}) {
    auto* verb = joins ? add_on("attach", "Put a port into a pool, at the switch of its site")
                       : add_on("detach", "Take a port out of a pool");
    verb->add_option("PORT", wish->port, "A port of the pool's tenant: NAME or HOST/NAME")
        ->required();
    verb->callback([&context, wish, joins] { attach_port(context, *wish, joins); });
  }
}

}  // namespace godwit::cli

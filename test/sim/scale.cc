#include "scale.hh"

#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>

#include "topology/actual.hh"
#include "topology/desired.hh"
#include "topology/plan.hh"
#include "world.hh"

namespace godwit::sim {
namespace {

using nlohmann::json;

double us_per_port(std::size_t ports, const std::function<void()>& work) {
  const std::clock_t start = std::clock();  // of this process alone
  work();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC * 1e6 /
         static_cast<double>(ports);
}

// ---- planning ----

constexpr std::size_t kHosts = 50, kPortsOfSwitch = 100;

std::string host_name(std::size_t number) { return fmt::format("h{}", number % kHosts); }

struct Network {
  json file = {{"components", json::object()}, {"vms", json::object()}, {"wires", json::array()}};
  json hosts = json::array();
  std::map<std::string, json> nothing, all;  // what the hosts answer
};

json port_of(const std::string& name, const char* owner, const std::string& owned_by) {
  return {{"name", name},        {"kind", owner[0] == 'v' ? "nic" : "component"},
          {"tenant", "default"}, {"topology", "shop"},
          {owner, owned_by},     {"epoch", 1}};
}

json end_of(const std::string& host, const std::string& port) {
  return {{"host", host}, {"port", port}};
}

Network network_of(std::size_t ports) {
  Network network;
  const json empty = {{"components", json::array()},
                      {"ports", json::array()},
                      {"vms", json::array()},
                      {"wires", json::array()}};
  for (std::size_t i = 0; i < kHosts; ++i) {
    network.hosts.push_back({{"name", host_name(i)}, {"site", "here"}});
    network.nothing[host_name(i)] = network.all[host_name(i)] = empty;
  }
  json described;
  for (std::size_t i = 0; i < ports / 2; ++i) {
    const std::size_t which = i / kPortsOfSwitch;
    const std::string name = fmt::format("sw{}", which), port = fmt::format("p{}", i);
    const std::string vm = fmt::format("vm{}", i), nic = fmt::format("vm{}-nic", i);
    const std::string at = host_name(which), vm_at = host_name(i);
    network.file["components"][name]["host"] = at;
    network.file["components"][name]["ports"][port] = {{"access", 10}};
    network.file["vms"][vm] = {{"host", vm_at}, {"nics", {{{"port", nic}}}}};
    network.file["wires"].push_back({name + "-" + port, nic});
    if (i % kPortsOfSwitch == 0) described = json::array();
    described.push_back({{"name", port}, {"access", 10}});
    network.all[at]["ports"].push_back(port_of(name + "-" + port, "component", name));
    network.all[vm_at]["ports"].push_back(port_of(nic, "vm", vm));
    network.all[vm_at]["vms"].push_back({{"name", vm}, {"tenant", "default"}});
    network.all[at]["wires"].push_back({{"id", fmt::format("{}", i)},
                                        {"a", end_of(at, name + "-" + port)},
                                        {"b", end_of(vm_at, nic)},
                                        {"tenant", "default"},
                                        {"topology", "shop"}});
    if (i % kPortsOfSwitch + 1 < kPortsOfSwitch && i + 1 < ports / 2) continue;
    network.all[at]["components"].push_back({{"name", name},
                                             {"type", "switch"},
                                             {"tenant", "default"},
                                             {"topology", "shop"},
                                             {"ports", described}});
  }
  return network;
}

// ---- the engine ----

template <class AnId>
AnId numbered(std::uint64_t number, std::byte kind) {
  AnId id;
  id.bytes.back() = kind;
  to_big_endian(number * 0x9e3779b97f4a7c15, id.bytes.data());  // as if it were random
  return id;
}

class ManyWires final {
 public:
  explicit ManyWires(std::size_t ports) : ports_(ports), world_(1, {}, 3) {
    world_.on_frame = [this](const std::string&, PortId, BytesView) { ++arrived_; };
    world_.on_event = [this](const std::string&, const wire::Event& event) {
      prepared_ += event.kind == wire::EventKind::prepared;
    };
    world_.most_shards = 1;
    world_.watches_timers = false;
    for (const std::string& name : world_.names()) world_.host(name).start();
  }

  void add_ports() {
    for (std::size_t i = 0; i < ports_; ++i) {
      for (const bool near : {true, false}) {
        at(near ? "h0" : "h1", [&](Engines& engine) {
          engine.add_port({port(i, near), 1, "default"}, world_.now());
          engine.connect(wire(i, near, near ? "h1" : "h0"), world_.now());
        });
      }
    }
  }
  void connect() {
    for (const auto& [a, b] : {std::pair{"h0", "h1"}, std::pair{"h0", "h2"}, std::pair{"h1", "h2"}})
      world_.connect(a, b);
    run_for(seconds(4));
    std::size_t up = 0;
    for (const auto& stats : world_.host("h0").engine()->wire_stats()) up += stats.state == "up";
    CHECK(up == ports_, "{} of {} wires are up", up, ports_);
  }
  // One from each, from either side: a second's worth.
  void send() {
    const std::size_t before = arrived_;
    for (std::size_t i = 0; i < ports_; ++i) {
      world_.after(seconds(1) * i / ports_, [this, i] {
        for (const bool near : {true, false}) {
          at(near ? "h0" : "h1", [&](Engines& engine) {
            const Bytes frame(200);
            const BytesView view = frame;
            engine.frames_from_port(port(i, near), {&view, 1}, world_.now());
          });
        }
      });
    }
    run_for(milliseconds(1200));
    CHECK(arrived_ - before == 2 * ports_, "{} of {} frames", arrived_ - before, 2 * ports_);
  }
  void stay() { run_for(seconds(20)); }
  // All of h0's to h2, one after the other within two seconds.
  void move() {
    for (std::size_t i = 0; i < ports_; ++i) {
      const PortId id = port(i, true);
      const auto later = [&](Nanoseconds delay, const std::string& host, auto call) {
        world_.after(seconds(2) * i / ports_ + delay,
                     [this, host, call] { at(host, [&](Engines& engine) { call(engine); }); });
      };
      later({}, "h0", [=, this](auto& engine) { engine.offer_move(id, "h2", 2, world_.now()); });
      later({}, "h2", [=, this](auto& engine) {
        const auto config = wire(i, true, "h1");
        engine.prepare({id, 2, "default"}, "h0", {&config, 1}, world_.now());
      });
      later(seconds(1), "h0", [=, this](auto& engine) { engine.pause(id, {}, world_.now()); });
      later(seconds(1), "h2", [=, this](auto& engine) { engine.run(id, world_.now()); });
      later(seconds(2), "h0", [=, this](auto& engine) { engine.release(id, world_.now()); });
    }
    run_for(seconds(40));
    CHECK(prepared_ == ports_, "{} of {} ports were prepared", prepared_, ports_);
    CHECK(world_.host("h0").engine()->port_stats().empty(), "some are left");
  }
  void remove() {
    for (std::size_t i = 0; i < ports_; ++i) {
      at("h1", [&](Engines& engine) { engine.disconnect(wire_id(i), world_.now()); });
      for (const bool near : {true, false}) {
        at(near ? "h2" : "h1",
           [&](Engines& engine) { engine.remove_port(port(i, near), world_.now()); });
      }
    }
  }

 private:
  static PortId port(std::size_t i, bool near) {
    return numbered<PortId>(2 * i + 1 + near, std::byte{1});
  }
  static WireId wire_id(std::size_t i) { return numbered<WireId>(i + 1, std::byte{2}); }
  static wire::WireConfig wire(std::size_t i, bool near, const std::string& host) {
    return {.id = wire_id(i),
            .local = port(i, near),
            .remote = port(i, !near),
            .remote_epoch = 1,
            .remote_host = host};
  }
  template <class Call>
  void at(const std::string& host, Call call) {
    call(*world_.host(host).engine());
    world_.host(host).schedule_tick();
  }
  void run_for(Nanoseconds time) {
    world_.run_until(world_.now() + time, [] {});
  }

  std::size_t ports_, arrived_ = 0, prepared_ = 0;
  World world_;
};

}  // namespace

std::vector<ScaleRow> scale_of_planning(std::size_t ports) {
  const Network network = network_of(ports);
  topology::Desired desired;
  topology::Actual nothing, all;
  topology::Plan first, second;
  const auto time = [&](const char* metric, const std::function<void()>& work) {
    return ScaleRow{.of = "plan", .metric = metric, .us_per_port = us_per_port(ports, work)};
  };
  std::vector<ScaleRow> rows;
  rows.push_back(time("read", [&] { desired = topology::parse(network.file, "shop").value(); }));
  nothing = topology::actual(network.hosts, network.nothing);
  rows.push_back(time("collect", [&] { all = topology::actual(network.hosts, network.all); }));
  rows.push_back(time("of nothing", [&] { first = plan(desired, nothing); }));
  rows.push_back(time("of all", [&] { second = plan(desired, all); }));
  desired.components.clear(), desired.vms.clear(), desired.wires.clear();
  rows.push_back(time("prune all", [&] { first = plan(desired, all); }));
  CHECK(second.steps.empty() && second.problems.empty(), "{}: not as wanted: {}", ports,
        second.steps.empty() ? "" : second.steps.front().what);
  CHECK(first.steps.size() >= ports && first.problems.empty(), "{} steps", first.steps.size());
  return rows;
}

std::vector<ScaleRow> scale_of_engine(std::size_t ports) {
  ManyWires wires(ports);
  std::vector<ScaleRow> rows;
  const auto time = [&](const char* metric, void (ManyWires::*step)()) {
    rows.push_back({.of = "engine", .metric = metric, .us_per_port = us_per_port(ports, [&] {
                                                        (wires.*step)();
                                                      })});
  };
  time("add", &ManyWires::add_ports);
  time("session and keys", &ManyWires::connect);
  time("send", &ManyWires::send);
  time("stay 20 s", &ManyWires::stay);
  time("move", &ManyWires::move);
  time("remove", &ManyWires::remove);
  return rows;
}

}  // namespace godwit::sim

// Ports: their records and devices, and what vms and migrations ask of them. Wires are in
// network_wires.cc.
#include "agent/network.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/host_name.hh"
#include "os/guest_route.hh"
#include "os/random.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kPartAfter = milliseconds(500);

// The same whenever the agent makes its interface: others remember it. Locally administered.
os::MacAddress mac_of(const PortId& port) {
  os::MacAddress mac;
  std::transform(port.bytes.begin(), port.bytes.begin() + mac.octets.size(), mac.octets.begin(),
                 [](std::byte each) { return std::to_integer<std::uint8_t>(each); });
  mac.octets[0] = static_cast<std::uint8_t>((mac.octets[0] & 0xfc) | 0x02);
  return mac;
}

std::shared_ptr<os::Tap> open_tap(const PortRecord& record) {
  if (record.kind == PortKind::bridge) {
    return std::make_shared<os::Tap>(os::open_bridge_port(record.interface, record.bridge));
  }
  const os::MacAddress mac = record.guest.empty() ? mac_of(record.id) : os::kGatewayMac;
  auto tap = std::make_shared<os::Tap>(
      os::open_uplink({.name = record.interface, .address = record.address, .mac = mac}));
  if (record.guest.empty()) return tap;
  os::be_gateway(record.interface, std::ranges::any_of(record.guest, [](const auto& each) {
                   return !each.address.is4();
                 }));
  return tap;
}

}  // namespace

Network::Network(os::Loop& loop, const Config& config, store::Store& store, WireThreads& wires,
                 Events& events)
    : loop_(loop), config_(config), store_(store), wires_(wires), events_(events) {}

Network::~Network() = default;

void Network::start() {
  for (const auto& document : store_.list("port")) {
    PortRecord record = port_record(document.body);
    try {
      open(record);
    } catch (const SetupError& error) {
      spdlog::error("port {} stays closed: {}", record.name, error.what());
    }
    ports_[record.id] = record;
  }
  std::vector<store::Document> wires = store_.list("wire");
  std::ranges::move(store_.list(kForeignWire), std::back_inserter(wires));
  for (const auto& document : wires) {
    const WireRecord record = wire_record(document.body);
    // An older agent, which does not see wires to other fleets, moved the port or made another one.
    const bool known = ports_.contains(record.local) && !wires_of_.contains(record.local);
    if (is_foreign(record.remote_host) && !known) {
      store_.erase(kForeignWire, document.key);
      continue;
    }
    wires_of_[record.local] = record;
    wires_.connect(config_of(record));
  }
}

// An interface name of at most 15 characters that tells which port it is.
void Network::open(PortRecord& record) {
  wires_.add_port({.id = record.id, .epoch = record.epoch, .tenant = record.tenant});
  // A vm brings its TAPs; a component has none.
  if (record.kind == PortKind::nic || record.kind == PortKind::component) return;
  auto tap = open_tap(record);
  for (const GuestAddress& each : record.guest) os::route_guest(record.interface, each.address);
  if (record.masquerade) {
    masquerades_.try_emplace(record.id, record.interface, parse_ip_prefix(record.address).value());
  }
  devices_[record.id] = tap;
  wires_.attach(record.id, std::move(tap));
}

const PortRecord* Network::find(std::string_view name) const {
  for (const auto& [id, record] : ports_) {
    if (record.name == name) return &record;
  }
  return nullptr;
}

void Network::save(const PortRecord& record) {
  ports_[record.id] = record;
  store_.put("port", record.id.text(), to_json(record));
}

void Network::forget_port(const PortId& port) {
  const PortRecord record = ports_.at(port);
  unroute(record);
  masquerades_.erase(port);
  devices_.erase(port);
  ports_.erase(port);
  store_.erase("port", port.text());
  tell_of_guests(record);
}

Result<nlohmann::json> Network::add_port(const nlohmann::json& request) {
  PortRecord record;
  const auto name = text_field(request, "name");
  if (!name) return std::unexpected(name.error());
  const std::string kind = text_field_or(request, "kind", "nic");
  record.name = *name;
  record.tenant = text_field_or(request, "tenant", kDefaultTenant);
  record.bridge = text_field_or(request, "bridge", "");
  record.interface = text_field_or(request, "interface", *name);
  record.address = text_field_or(request, "address", "");
  record.topology = text_field_or(request, "topology", "");
  const auto masquerade = flag_field(request, "masquerade", false);
  if (!masquerade) return std::unexpected(masquerade.error());
  record.masquerade = *masquerade;
  auto guest = parse_guest(qemu::member(request, "guest_addresses"));
  if (!guest) return std::unexpected(guest.error());
  record.guest = *std::move(guest);
  if (!is_valid_name(record.name) || !is_valid_name(record.tenant)) {
    return fail("'{}' is not a port name: use 1 to 63 of a-z, 0-9 and '-'", record.name);
  }
  if (!record.topology.empty() && !is_valid_name(record.topology)) {
    return fail("'{}' is not a topology's name: use a-z, 0-9 and '-'", record.topology);
  }
  const auto parsed = port_kind(kind);
  if (!parsed || *parsed == PortKind::component) {
    return fail("a port is a 'nic', a 'bridge' or an 'uplink', not '{}'", kind);
  }
  record.kind = *parsed;
  if (const PortRecord* same = find(record.name)) {
    if (same->kind == record.kind && same->tenant == record.tenant &&
        same->bridge == record.bridge && same->address == record.address &&
        same->masquerade == record.masquerade &&
        addresses_of(same->guest) == addresses_of(record.guest)) {
      return to_json(*same);  // repeated: harmless
    }
    return fail("there is another port '{}' on host {}: remove it first", record.name,
                config_.name);
  }
  if (record.kind == PortKind::bridge && record.bridge.empty()) {
    return fail("port {}: name the bridge it shall join", record.name);
  }
  const auto network = parse_ip_prefix(record.address);
  if (record.masquerade && (record.kind != PortKind::uplink || !network ||
                            !network->address.is4() || network->length > 30)) {
    return fail("port {}: an uplink with an IPv4 network, like 10.7.0.1/24, can masquerade it",
                record.name);
  }
  if (!record.guest.empty() && (record.kind != PortKind::uplink || !record.address.empty())) {
    return fail("port {}: a guest is behind an uplink, which has no address of its own then",
                record.name);
  }
  if (auto free = may_have_guest(record); !free) return std::unexpected(free.error());
  record.id = os::random_id<PortId>();
  if (record.interface.size() > 15) record.interface = os::TapPair::name_of(record.id);
  if (auto done = add(record); !done) return std::unexpected(done.error());
  return to_json(record);
}

Result<> Network::add(PortRecord record) {
  try {
    open(record);
  } catch (const SetupError& error) {
    wires_.remove_port(record.id);
    return fail("cannot add port {}: {}", record.name, error.what());
  }
  if (auto done = store_.record("port", record.id.text(), to_json(record)); !done) {
    wires_.detach(record.id);
    wires_.remove_port(record.id);
    unroute(record);
    masquerades_.erase(record.id);
    devices_.erase(record.id);
    return done;
  }
  ports_[record.id] = record;
  announce_guest(record);
  tell_of_guests(record);
  events_.publish("port", {{"name", record.name}, {"tenant", record.tenant}, {"event", "added"}});
  return {};
}

Result<PortRecord> Network::add_component_port(const std::string& name, const std::string& tenant,
                                               const std::string& component,
                                               const std::string& topology) {
  if (!is_valid_name(name)) {
    return fail("'{}' is not a port name: use 1 to 63 of a-z, 0-9 and '-'", name);
  }
  if (find(name) != nullptr) {
    return fail("there is a port '{}' on host {} already", name, config_.name);
  }
  const PortRecord record{.id = os::random_id<PortId>(),
                          .name = name,
                          .tenant = tenant,
                          .kind = PortKind::component,
                          .vm = {},
                          .component = component,
                          .bridge = {},
                          .interface = {},
                          .address = {},
                          .topology = topology};
  if (auto done = add(record); !done) return std::unexpected(done.error());
  return record;
}

std::vector<PortId> Network::component_ports() const {
  std::vector<PortId> ports;
  for (const auto& [id, record] : ports_) {
    if (record.kind == PortKind::component) ports.push_back(id);
  }
  return ports;
}

Result<> Network::remove_component_port(const PortId& port) {
  const auto found = ports_.find(port);
  return found == ports_.end() ? Result<>{} : remove(PortRecord(found->second));
}

Result<> Network::remove_port(const std::string& name, const std::string& tenant) {
  const PortRecord* record = find(name);
  if (record == nullptr || !is_of(record->tenant, tenant)) return {};
  if (!record->vm.empty()) {
    return fail("port {} belongs to vm {}: remove the vm first", name, record->vm);
  }
  if (!record->component.empty()) {
    return fail("port {0} belongs to component {1}: godwit component set {1} --remove-port", name,
                record->component);
  }
  return remove(PortRecord(*record));
}

Result<> Network::remove(const PortRecord& record) {
  if (wire_at(record.id) != nullptr) {
    return fail("port {} has a wire: disconnect it first", record.name);
  }
  wires_.detach(record.id);
  wires_.remove_port(record.id);
  forget_port(record.id);
  events_.publish("port", {{"name", record.name}, {"tenant", record.tenant}, {"event", "removed"}});
  return {};
}

void Network::list_ports(const std::string& tenant, std::function<void(nlohmann::json)> done) {
  wires_.stats([this, tenant, done = std::move(done)](const WireThreads::Stats& stats) {
    nlohmann::json list = nlohmann::json::array();
    for (const auto& [id, record] : ports_) {
      if (is_of(record.tenant, tenant)) list.push_back(describe(record, stats));
    }
    done(std::move(list));
  });
}

nlohmann::json Network::describe(const PortRecord& record, const WireThreads::Stats& stats) const {
  nlohmann::json json = to_json(record);
  json["host"] = config_.name;
  json["state"] = "live";
  for (const auto& port : stats.ports) {
    if (port.id.port == record.id) json["state"] = wire::to_text(port.state);
  }
  if (const WireRecord* wire = wire_at(record.id)) json["wire"] = wire->id.text();
  return json;
}

// ---- for vms ----

Result<PortRecord> Network::nic_for(const std::string& name, const std::string& tenant,
                                    const std::string& vm, const std::string& topology) {
  if (const PortRecord* found = find(name)) {
    if (found->kind != PortKind::nic) {
      return fail("port {} is a {}: a vm's port is a nic", name, to_text(found->kind));
    }
    if (found->tenant != tenant) return fail("port {} is not of tenant {}", name, tenant);
    if (!found->vm.empty() && found->vm != vm) {
      return fail("port {} belongs to vm {}", name, found->vm);
    }
    return *found;
  }
  const auto made =
      add_port({{"name", name}, {"kind", "nic"}, {"tenant", tenant}, {"topology", topology}});
  if (!made) return std::unexpected(made.error());
  return *find(name);
}

Result<const os::Fd*> Network::attach_nic(PortId port, const std::string& vm) {
  const bool arriving = arriving_.contains(port);
  const auto found = arriving ? arriving_.find(port) : ports_.find(port);
  if (!arriving && found == ports_.end()) return fail("vm {}: its port is not here", vm);
  parting_.erase(port);  // it is back already
  try {
    auto pair =
        std::make_shared<os::TapPair>(os::TapPair::create({.name = os::TapPair::name_of(port)}));
    const os::Fd* fd = &pair->guest_fd();
    found->second.vm = vm;
    found->second.interface = pair->guest_interface();
    if (!arriving) save(found->second);
    devices_[port] = pair;
    wires_.attach(port, std::move(pair));
    return fd;
  } catch (const SetupError& error) {
    return fail("cannot make the TAPs of port {}: {}", found->second.name, error.what());
  }
}

Result<> Network::reattach_nic(PortId port, const os::Child& qemu) {
  try {
    auto pair = std::make_shared<os::TapPair>(
        os::TapPair::reattach({.name = os::TapPair::name_of(port)}, qemu));
    devices_[port] = pair;
    wires_.attach(port, std::move(pair));
    return {};
  } catch (const SetupError& error) {
    return fail("{}", error.what());
  }
}

void Network::sweep_nics() {
  std::vector<PortId> strays;
  for (const auto& [port, device] : devices_) {
    if (!ports_.contains(port) && !arriving_.contains(port)) strays.push_back(port);
  }
  for (const PortId& port : strays) detach_nic(port);
  try {
    os::TapPair::remove_stale();
  } catch (const SetupError& error) {
    spdlog::warn("rules of vms that are gone stay behind: {}", error.what());
  }
}

void Network::detach_nic(PortId port) {
  wires_.detach(port);
  devices_.erase(port);
}

void Network::release_nic(PortId port) {
  detach_nic(port);
  const auto found = ports_.find(port);
  if (found == ports_.end()) return;
  found->second.vm.clear();
  save(found->second);
}

// ---- for migrations ----

Result<nlohmann::json> Network::describe_nic(PortId port) const {
  const auto found = ports_.find(port);
  if (found == ports_.end()) return fail("port {} is not on host {}", port.text(), config_.name);
  nlohmann::json json = {{"port", to_json(found->second)}};
  if (const WireRecord* wire = wire_at(port)) json["wire"] = to_json(*wire);
  if (guest_uplink(port) != nullptr) json["neighbours"] = neighbours_of(found->second);
  return json;
}

std::vector<std::string> Network::peers_of(PortId port) const {
  const WireRecord* wire = wire_at(port);
  return wire == nullptr ? std::vector<std::string>{} : std::vector{wire->remote_host};
}

void Network::offer_move(PortId port, const std::string& to_host, Epoch epoch) {
  wires_.offer_move(port, to_host, epoch);
}

void Network::plug(const std::vector<PortId>& ports, std::function<void()> done) {
  wires_.plug(ports, std::move(done));
}

void Network::pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
                    std::function<void()> done) {
  wires_.pause(ports, std::move(newest), std::move(done));
}

void Network::resume(const std::vector<PortId>& ports) { wires_.resume(ports); }

// The port is the target's now: its record goes at once, the wire thread forwards for the lease.
void Network::release(const std::vector<PortId>& all, Epoch epoch, std::function<void()> drained) {
  std::vector<PortId> ports;
  for (const PortId& port : all) {
    const auto found = ports_.find(port);
    if (found != ports_.end() && found->second.epoch < epoch) ports.push_back(port);
  }
  if (ports.empty()) return loop_.post(std::move(drained));
  store_.begin_group();
  auto left = std::make_shared<std::size_t>(ports.size());
  for (const PortId& port : ports) {
    leaving_[port] = [left, drained] {
      if (--*left == 0) drained();
    };
    wires_.release({port, ports_.at(port).epoch});
    wires_.detach(port);
    if (const WireRecord* wire = wire_at(port)) store_.erase(store_kind(*wire), port.text());
    wires_of_.erase(port);
    part_later(port);
    forget_port(port);
  }
  (void)store_.end_group();  // on a full disk it waits
}

// Taking a pair of TAPs apart waits for all of the kernel's CPUs, some 20 ms, in which nobody would
// be answered: next is the guest's uplink, which follows it.
void Network::part_later(const PortId& port) {
  const auto found = devices_.find(port);
  if (found == devices_.end()) return;
  if (!std::holds_alternative<std::shared_ptr<os::TapPair>>(found->second)) return;
  parting_[port] = {.device = found->second,
                    .timer = loop_.after(kPartAfter, [this, port] { parting_.erase(port); })};
}

bool Network::has_other_port(const std::string& name, const PortId& port) const {
  const PortRecord* found = find(name);
  return found != nullptr && found->id != port;
}

Result<PortId> Network::prepare_held(const nlohmann::json& described, PortKind kind,
                                     const std::string& from_host, Epoch epoch) {
  const auto parsed = parse_port(qemu::member(described, "port"));
  if (!parsed) return std::unexpected(parsed.error());
  PortRecord record = *parsed;
  if (record.kind != kind) return fail("port {} is a {}", record.name, to_text(record.kind));
  record.epoch = epoch;
  record.bridge.clear();
  record.address.clear();
  if (ports_.contains(record.id) || arriving_.contains(record.id)) {
    return fail("port {} is on host {} already", record.name, config_.name);
  }
  if (find(record.name) != nullptr) {
    return fail("host {} has another port '{}': remove or rename it", config_.name, record.name);
  }
  if (auto free = may_have_guest(record); !free) return std::unexpected(free.error());
  std::vector<wire::WireConfig> wires;
  if (described.contains("wire")) {
    const auto wire = parse_wire(described["wire"]);
    if (!wire) return std::unexpected(wire.error());
    if (wire->local != record.id) return fail("port {} comes with another's wire", record.name);
    const auto fleet = fleet_of(wire->remote_host);
    if (!fleet.empty() && port_for(fleet, &record) == nullptr) {
      return fail("port {} has a wire to fleet {}, which host {} does not trust for it",
                  record.name, fleet, config_.name);
    }
    arriving_wires_[record.id] = *wire;
    wires.push_back(config_of(*wire));
  }
  if (record.kind == PortKind::uplink) {
    try {
      record.interface = free_interface(record);
      devices_[record.id] = open_tap(record);
    } catch (const SetupError& error) {
      arriving_wires_.erase(record.id);
      return fail("host {} cannot take port {}: {}", config_.name, record.name, error.what());
    }
  }
  arriving_[record.id] = record;
  wires_.prepare({.id = record.id, .epoch = epoch, .tenant = record.tenant}, from_host,
                 std::move(wires));
  return record.id;
}

void Network::when_prepared(const std::vector<PortId>& ports, Nanoseconds limit, Done done) {
  waiting_.push_back({.ports = ports, .done = std::move(done), .limit = {}});
  auto& waiting = waiting_.back();
  waiting.limit = loop_.after(limit, [this, at = std::prev(waiting_.end()), limit] {
    Waiting over = std::move(*at);
    waiting_.erase(at);
    std::string missing;
    for (const PortId& port : over.ports) {
      if (!held_ready_.contains(port)) missing += " " + arriving_[port].name;
    }
    over.done(fail("no UDP path within {} for port{}: is UDP port {} open between the hosts?",
                   to_text(limit), missing, config_.port));
  });
  loop_.post([this] { settle_waiting(); });
}

void Network::settle_waiting() {
  const auto ready = [this](const Waiting& waiting) {
    return std::ranges::all_of(waiting.ports,
                               [this](const PortId& port) { return held_ready_.contains(port); });
  };
  // done() may change the list.
  for (auto at = std::ranges::find_if(waiting_, ready); at != waiting_.end();
       at = std::ranges::find_if(waiting_, ready)) {
    Waiting over = std::move(*at);
    waiting_.erase(at);
    over.done({});
  }
}

void Network::run(const std::vector<PortId>& ports, std::function<void(Held)> done) {
  wires_.run(ports);
  have_run(ports, std::move(done));
}

void Network::have_run(const std::vector<PortId>& ports, std::function<void(Held)> done) {
  std::map<PortId, Epoch> counted;  // the port may linger at an older epoch, and count there too
  for (const PortId& port : ports) {
    held_ready_.erase(port);
    const auto arrived = arriving_.find(port);
    if (arrived == arriving_.end()) continue;
    counted[port] = arrived->second.epoch;
    save(arrived->second);
    held_routed_.erase(port);
    arriving_.erase(arrived);
    if (const auto wire = arriving_wires_.find(port); wire != arriving_wires_.end()) {
      save(wire->second);
      arriving_wires_.erase(wire);
    }
  }
  wires_.stats([counted, done = std::move(done)](const WireThreads::Stats& stats) {
    Held sum;
    for (const auto& port : stats.ports) {
      const auto found = counted.find(port.id.port);
      if (found == counted.end() || found->second != port.id.epoch) continue;
      sum.frames += port.held_total;
      sum.dropped += port.held_dropped;
    }
    done(sum);
  });
}

void Network::discard_held(const std::vector<PortId>& ports) {
  for (const PortId& port : ports) {
    const auto arriving = arriving_.find(port);
    if (arriving == arriving_.end()) continue;
    unroute(arriving->second);
    held_routed_.erase(port);
    arriving_.erase(arriving);
    arriving_wires_.erase(port);
    held_ready_.erase(port);
    wires_.discard(port);
    wires_.detach(port);
    devices_.erase(port);
  }
  // Vms without NICs have nothing that tells them apart: theirs is called, and finds nobody.
  std::erase_if(waiting_,
                [&](const Waiting& waiting) { return !ports.empty() && waiting.ports == ports; });
}

}  // namespace godwit::agent

#include "agent/relocations.hh"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "agent/endpoint_lead.hh"
#include "agent/nat_lead.hh"
#include "migrate/bounds.hh"
#include "qemu/json.hh"
#include "translate/locator.hh"
#include "translate/plan_json.hh"

namespace godwit::agent {

using translate::DeviceIndex;

namespace {

// Calls `done` when all have, with what each told, or the first error.
Relocation::Done together(std::size_t count, Relocation::Done done) {
  struct All {
    std::size_t left;
    nlohmann::json told = nlohmann::json::array();
    std::optional<Error> error{};
    Relocation::Done done;
  };
  auto all = std::make_shared<All>(All{.left = count, .done = std::move(done)});
  return [all](Result<nlohmann::json> result) {
    if (result) {
      all->told.push_back(*std::move(result));
    } else if (!all->error) {
      all->error = result.error();
    }
    if (--all->left > 0 || !all->done) return;
    if (all->error) return all->done(std::unexpected(*all->error));
    all->done(all->told);
  };
}

nlohmann::json endpoint_plan(const RelocationRecord& record) {
  nlohmann::json addresses = nlohmann::json::array();
  const auto& on_the_way = record.lead.at("on_the_way");
  for (const auto& each : record.addresses) {
    addresses.push_back({{"address", each.address.text()}});
    if (on_the_way.empty()) continue;  // it is at home
    addresses.back().update({{"new_address", each.to_locator.text()},
                             {"on_the_way", on_the_way.at(each.address.text())}});
  }
  return {{"id", record.port.text()},
          {"port", record.name},
          {"strategy", "endpoint"},
          {"addresses", addresses},
          {"relay_s", record.lead.at("relay_limit_s")}};
}

std::unique_ptr<Lead> lead_by(Strategy strategy, const Lead::Context& context,
                              EndpointParts& endpoint,
                              std::shared_ptr<const translate::Fabric> fabric,
                              const Lead::Owner& owner) {
  if (strategy == Strategy::endpoint) {
    return std::make_unique<EndpointLead>(context, endpoint, owner);
  }
  if (strategy != Strategy::nat) fail_setup("{} leads no packets", to_text(strategy));
  if (!fabric) fail_setup("no fabric is known any more");
  return std::make_unique<NatLead>(context, std::move(fabric), owner);
}

// How a guest may go to another host of its network: by nat it keeps what it has there. If another
// of its uplinks has left its home, that one can go on by endpoint only, which is nothing for this
// one.
const char* within_its_network(const nlohmann::json& uplinks) {
  for (const auto& described : uplinks) {
    const auto port = parse_port(qemu::member(described, "port"));
    if (port && std::ranges::any_of(port->guest, [](const GuestAddress& each) {
          return each.new_address.has_value();
        })) {
      return "wire";
    }
  }
  return "nat, or wire";
}

}  // namespace

Relocations::Relocations(const Relocation::Context& context, const Fabrics& fabrics,
                         EndpointParts& endpoint)
    : context_(context), fabrics_(fabrics), endpoint_(endpoint) {}

void Relocations::start() {
  for (const auto& document : context_.store.list("relocation")) {
    const RelocationRecord record = relocation_record(document.body);
    try {
      begin(record);
    } catch (const SetupError& error) {
      spdlog::error("port {} cannot follow its guest: {}; godwit rule prune --guest {}",
                    record.name, error.what(), record.port.text());
      continue;
    }
    find(record.port)->restart();
  }
}

void Relocations::begin(const RelocationRecord& record) {
  const auto make_lead = [this](const Lead::Owner& owner) {
    return lead_by(owner.record.strategy, context_, endpoint_, fabrics_.get(), owner);
  };
  auto relocation = std::make_unique<Relocation>(context_, record, make_lead);
  relocations_[record.port] = std::move(relocation);
}

void Relocations::undo_strays(const std::set<PortId>& awaited) {
  for (const auto& [port, relocation] : relocations_) {
    if (relocation->is_staging() && !awaited.contains(port)) relocation->undo();
  }
}

Relocation* Relocations::find(const PortId& port) const {
  const auto found = relocations_.find(port);
  return found == relocations_.end() ? nullptr : found->second.get();
}

void Relocations::sweep() {
  std::erase_if(relocations_, [](const auto& each) { return each.second->is_over(); });
}

std::set<Ip> Relocations::used_addresses() const {
  std::set<Ip> used = context_.network.locators();
  used.merge(context_.network.guests());
  used.merge(endpoint_.relays.names());
  used.merge(endpoint_.relays.lent());
  for (const auto& [port, relocation] : relocations_) {
    if (relocation->is_over()) continue;
    for (const auto& each : relocation->record().addresses) used.insert(each.to_locator);
    const auto& lead = relocation->record().lead;
    if (const auto ways = parse_addresses(qemu::member(lead, "on_the_way"))) {
      for (const auto& [address, way] : *ways) used.insert(way);
    }
  }
  return used;
}

// ---- planning ----

Result<translate::AddressMove> Relocations::address_move(const translate::Fabric& fabric,
                                                         const GuestAddress& guest,
                                                         Strategy strategy, DeviceIndex from,
                                                         DeviceIndex to, std::set<Ip>& used) const {
  const std::string text = guest.address.text();
  if (fabric.homes_of(guest.address).empty()) {
    return fail("{} is of no network of the fabric", text);
  }
  if (guest.new_address && strategy != Strategy::endpoint) {
    return fail("{} has another address since it left home, {}: --strategy endpoint, or wire", text,
                guest.new_address->text());
  }
  if (guest.new_address && fabric.is_home(to, guest.address)) {
    return translate::AddressMove{
        .address = guest.address, .from_locator = guest.new_address, .to_locator = guest.address};
  }
  const bool is_at_home = !guest.locator && fabric.is_home(from, guest.address);
  if (strategy == Strategy::endpoint && !guest.new_address && !is_at_home) {
    return fail("{} is not at home at host {}: endpoint is for guests that leave home", text,
                fabric.devices[from].name);
  }
  if (!guest.locator && !guest.new_address && !is_at_home) {
    return fail("{} is not at home at host {}, and it is not known how it is reached there", text,
                fabric.devices[from].name);
  }
  const auto locator = translate::free_locator(fabric, to, guest.address, used);
  if (!locator) return std::unexpected(locator.error());
  used.insert(*locator);
  return translate::AddressMove{
      .address = guest.address,
      .from_locator = guest.new_address ? guest.new_address : guest.locator,
      .to_locator = *locator};
}

Result<Ip> Relocations::free_address(const Ip& like) const {
  const auto fabric = fabrics_.get();
  if (!fabric) return fail("no fabric is known: godwit fabric set FILE");
  const auto here = fabric->find(context_.config.name);
  if (!here || !fabric->devices[*here].is_host()) {
    return fail("host {} is not of the fabric (godwit fabric show)", context_.config.name);
  }
  return translate::free_locator(*fabric, *here, like, used_addresses());
}

// Each address needs two there: one for its connections on their way, one for new ones. At home it
// needs none.
Result<> Relocations::leave_address(const translate::Fabric& fabric, const Leading& leading,
                                    DeviceIndex to, const char* remedy, std::set<Ip>& used,
                                    RelocationRecord& record) const {
  std::map<Ip, Ip> on_the_way;
  for (const auto& each : record.addresses) {
    if (each.to_locator == each.address) continue;  // it goes home
    const std::string text = each.address.text();
    if (fabric.is_home(to, each.address)) {
      return fail("{} is at home at host {}, too: --strategy {}", text, fabric.devices[to].name,
                  remedy);
    }
    const auto way = translate::free_locator(fabric, to, each.address, used);
    if (!way) return std::unexpected(way.error());
    used.insert(*way);
    on_the_way.emplace(each.address, *way);
  }
  if (!on_the_way.empty() && on_the_way.size() < record.addresses.size()) {
    return fail("of port {}'s addresses some are at home at host {}, and others not: wire",
                record.name, fabric.devices[to].name);
  }
  record.lead = {{"on_the_way", to_json(on_the_way)},
                 {"relay_limit_s", duration_cast<seconds>(leading.relay_limit).count()}};
  return {};
}

// A device that is known to be away is not waited for.
Result<> Relocations::reaches(const translate::Fabric& fabric,
                              const translate::GuestMove& move) const {
  std::vector<std::string> away, old;
  for (const DeviceIndex device : devices_of(fabric, move)) {
    const std::string& agent = fabric.devices[device].agent;
    if (agent == context_.config.name) continue;
    if (!context_.peers.is_up(agent)) {
      away.push_back(agent);
    } else if (context_.peers.protocol(agent) < kRulesProtocol) {
      old.push_back(agent);
    }
  }
  if (!away.empty()) {
    return fail(
        "host {} has no session with {}, which would have to rewrite the guest's address: "
        "is godwitd running there?",
        context_.config.name, fmt::join(away, ", "));
  }
  if (!old.empty()) {
    return fail("the agents of {} are too old to rewrite addresses: upgrade them",
                fmt::join(old, ", "));
  }
  return {};
}

// What it left here when it went on has to have ended, but for the relay of its home.
Result<> Relocations::may_come(const translate::Fabric& fabric, const PortRecord& port,
                               const std::string& from, DeviceIndex here) const {
  const std::string& self = context_.config.name;
  const Relocation* known = find(port.id);
  const bool is_known = known != nullptr && !known->is_over();
  const bool is_home = std::ranges::all_of(
      port.guest, [&](const auto& each) { return fabric.is_home(here, each.address); });
  const auto gone = endpoint_.relays.gone(port.id);
  if (gone && (is_known || !is_home)) {
    return fail(
        "host {} still relays connections of port {} to host {}, from when it was here "
        "last (godwit fabric show): when they have ended it can come back",
        self, port.name, gone->to);
  }
  if (is_known) {
    return fail("port {} has not settled since it was here last: try again in some seconds",
                port.name);
  }
  if (context_.network.has_other_port(port.name, port.id)) {
    return fail("host {} has another port '{}': remove or rename it", self, port.name);
  }
  const bool is_displaced = std::ranges::any_of(
      port.guest, [](const auto& each) { return each.new_address.has_value(); });
  if (is_displaced && context_.peers.protocol(from) < kEndpointAgainProtocol) {
    return fail("the agent of host {} is too old to let port {} go on: upgrade it, or wire", from,
                port.name);
  }
  return {};
}

// `uplinks`: all that come with it.
Result<RelocationRecord> Relocations::record_of(const nlohmann::json& described,
                                                const nlohmann::json& uplinks,
                                                const std::string& from, Epoch epoch,
                                                const Leading& leading) const {
  const auto port = parse_port(qemu::member(described, "port"));
  if (!port) return std::unexpected(port.error());
  const auto fabric = fabrics_.get();
  if (!fabric) return fail("no fabric is known: godwit fabric set FILE");
  const auto host = [&](const std::string& name) -> Result<DeviceIndex> {
    const auto found = fabric->find(name);
    if (found && fabric->devices[*found].is_host()) return *found;
    return fail("host {} is not of the fabric (godwit fabric show)", name);
  };
  const auto source = host(from), target = host(context_.config.name);
  if (!source) return std::unexpected(source.error());
  if (!target) return std::unexpected(target.error());
  if (auto may = may_come(*fabric, *port, from, *target); !may) {
    return std::unexpected(may.error());
  }
  RelocationRecord record{.port = port->id,
                          .name = port->name,
                          .from = from,
                          .described = described,
                          .epoch = epoch,
                          .addresses = {},
                          .strategy = leading.strategy};
  std::set<Ip> used = used_addresses();
  for (const GuestAddress& each : port->guest) {
    const auto address = address_move(*fabric, each, leading.strategy, *source, *target, used);
    if (!address) return std::unexpected(address.error());
    record.addresses.push_back(*address);
  }
  if (record.addresses.empty()) return fail("port {} is no guest's uplink", port->name);
  const auto can =
      leading.strategy == Strategy::endpoint
          ? leave_address(*fabric, leading, *target, within_its_network(uplinks), used, record)
          : reaches(*fabric, NatLead::move_of(*fabric, context_.config.name, record));
  if (!can) return std::unexpected(can.error());
  return record;
}

Result<nlohmann::json> Relocations::plan(const nlohmann::json& uplinks, const std::string& from,
                                         Epoch epoch, const Leading& leading) const {
  nlohmann::json plans = nlohmann::json::array();
  for (const auto& described : uplinks) {
    const auto record = record_of(described, uplinks, from, epoch, leading);
    if (!record) return std::unexpected(record.error());
    if (leading.strategy == Strategy::endpoint) {
      plans.push_back(endpoint_plan(*record));
      continue;
    }
    const auto fabric = fabrics_.get();
    nlohmann::json plan =
        plan_json(*fabric, NatLead::move_of(*fabric, context_.config.name, *record));
    plan["port"] = record->name;
    plans.push_back(std::move(plan));
  }
  return plans;
}

void Relocations::survey(nlohmann::json plans, std::function<void(nlohmann::json)> done) {
  struct Survey {
    nlohmann::json plans;
    std::size_t left = 0;
    std::function<void(nlohmann::json)> done;
  };
  auto survey = std::make_shared<Survey>(
      Survey{.plans = std::move(plans), .left = 0, .done = std::move(done)});
  survey->left = survey->plans.size();
  for (std::size_t i = 0; i < survey->plans.size(); ++i) {
    const auto uplink = id_field<PortId>(survey->plans[i], "id");
    const auto& addresses = array_field(survey->plans[i], "addresses");
    const bool goes_home = !addresses.empty() && !addresses[0].contains("new_address");
    endpoint_.source.survey(uplink.value_or(PortId{}), goes_home,
                            [survey, i](const Result<nlohmann::json>& connections) {
                              if (connections) survey->plans[i].update(*connections);
                              if (--survey->left == 0) survey->done(std::move(survey->plans));
                            });
  }
}

// ---- moves to here ----

void Relocations::stage(const nlohmann::json& uplinks, const std::string& from, Epoch epoch,
                        const Leading& leading, Relocation::Done done) {
  sweep();
  std::vector<Relocation*> begun;
  for (const auto& described : uplinks) {
    const auto record = record_of(described, uplinks, from, epoch, leading);
    if (!record) {
      for (Relocation* each : begun) each->undo();
      return done(std::unexpected(record.error()));
    }
    begin(*record);
    begun.push_back(find(record->port));
  }
  auto all = std::make_shared<Relocation::Done>(together(begun.size(), std::move(done)));
  for (Relocation* each : begun) {
    each->stage([all](Result<nlohmann::json> told) { (*all)(std::move(told)); });
  }
}

void Relocations::follow(const std::vector<PortId>& uplinks, Relocation::Done done) {
  std::vector<Relocation*> those;
  for (const PortId& port : uplinks) {
    if (Relocation* each = find(port); each != nullptr && each->is_staging()) those.push_back(each);
  }
  if (those.empty()) return;
  auto all = std::make_shared<Relocation::Done>(together(those.size(), std::move(done)));
  for (Relocation* each : those) {
    each->follow([all](Result<nlohmann::json> told) { (*all)(std::move(told)); });
  }
}

void Relocations::undo(const std::vector<PortId>& uplinks) {
  for (const PortId& port : uplinks) {
    if (Relocation* each = find(port)) each->undo();
  }
}

bool Relocations::is_on_its_way(const std::string& port) const {
  return std::ranges::any_of(relocations_, [&](const auto& each) {
    return each.second->record().name == port && !each.second->is_over();
  });
}

bool Relocations::give_up(const std::string& port) {
  return std::ranges::any_of(relocations_, [&](const auto& each) {
    return each.second->record().name == port && !each.second->is_over() && each.second->give_up();
  });
}

nlohmann::json Relocations::describe() const {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& [port, relocation] : relocations_) {
    if (!relocation->is_over()) list.push_back(relocation->describe());
  }
  return list;
}

// ---- moves from here ----

bool Relocations::is_offered(const PortId& port, const Offer& offer) const {
  const auto found = offers_.find(port);
  return found != offers_.end() && found->second == offer;
}

void Relocations::offer(const PortId& port, const Offer& offer) {
  offers_[port] = offer;
  context_.network.offer_move(port, offer.to, offer.epoch);
}

void Relocations::withdraw(const PortId& port) {
  offers_.erase(port);
  context_.network.resume({port});
}

void Relocations::pause_uplink(const PortId& port, const Offer& asked,
                               EndpointSource::Answer told) {
  if (auto led = endpoint_.relays.forward(port, asked.to); !led) {
    return told(std::unexpected(led.error()));
  }
  if (!is_offered(port, asked)) offer(port, asked);  // by an agent that has ended since
  context_.network.pause({port}, {}, [this, port, told = std::move(told)] {
    told(endpoint_.source.last_connections(port));
  });
}

// What it does not hear it asks for.
void Relocations::leave(const std::vector<PortId>& uplinks, const std::string& to, Epoch epoch) {
  if (context_.peers.protocol(to) < kStandsProtocol) return;
  for (const PortId& port : uplinks) {
    const PortRecord* uplink = context_.network.guest_uplink(port);
    if (uplink == nullptr || uplink->epoch >= epoch || !endpoint_.relays.leads(port, to)) continue;
    pause_uplink(port, {.to = to, .epoch = epoch},
                 [this, port, to, epoch](const Result<nlohmann::json>& told) {
                   if (!told) return;
                   context_.peers.request(
                       to, "uplink.stands",
                       {{"port", port.text()}, {"epoch", epoch}, {"told", *told}},
                       [](const Result<nlohmann::json>&) {}, migrate::kNotifyTimeout);
                 });
  }
}

void Relocations::stay(const std::vector<PortId>& uplinks) {
  for (const PortId& port : uplinks) {
    endpoint_.relays.stay(port);
    if (offers_.contains(port)) withdraw(port);
  }
}

void Relocations::on_request(PeerRequest request, const nlohmann::json& body) {
  const auto port = id_field<PortId>(body, "port");
  if (!port) return request.answer(std::unexpected(port.error()));
  const Epoch epoch = epoch_field(body, "epoch", 0);
  if (request.method == "uplink.stands") {
    Relocation* arriving = find(*port);
    const bool is_its = arriving != nullptr && arriving->record().from == request.peer &&
                        arriving->record().epoch == epoch;
    if (is_its) arriving->source_stands(qemu::member(body, "told"));
    return request.answer(nlohmann::json::object());
  }
  const PortRecord* uplink = context_.network.guest_uplink(*port);
  const bool is_left = uplink == nullptr || uplink->epoch >= epoch;
  const Offer asked{.to = request.peer, .epoch = epoch};
  if (request.method == "uplink.offer") {
    if (is_left) {
      return request.answer(fail("port {} is not on host {}", port->text(), context_.config.name));
    }
    offer(*port, asked);
    return request.answer(context_.network.describe_nic(*port));
  }
  if (is_left) return request.answer(nlohmann::json::object());  // it was done before
  if (request.method == "uplink.withdraw") {
    if (is_offered(*port, asked)) withdraw(*port);  // else it was offered to another since
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "uplink.pause") return pause_uplink(*port, asked, request.answer);
  if (request.method == "uplink.release") {
    offers_.erase(*port);
    context_.network.release({*port}, epoch, [] {});
    return request.answer(nlohmann::json::object());
  }
  request.answer(fail("unknown request {}", request.method));
}

}  // namespace godwit::agent

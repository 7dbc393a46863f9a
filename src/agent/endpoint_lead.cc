#include "agent/endpoint_lead.hh"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "crypto/keyed_hash.hh"
#include "os/relay_route.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"
#include "translate/rule.hh"

namespace godwit::agent {

using translate::Phase;
using translate::RuleKind;

namespace {

constexpr Nanoseconds kEndpointStageTimeout = seconds(10);
constexpr Nanoseconds kEndpointTimeout = seconds(3);
constexpr Nanoseconds kEndpointRetry = seconds(1);
constexpr Nanoseconds kEndpointWatch = seconds(5);

}  // namespace

EndpointLead::EndpointLead(const Context& context, EndpointParts& parts, Owner owner)
    : context_(context), parts_(parts), owner_(std::move(owner)), reached_(owner_.record.reached) {
  load(owner_.record.lead);
}

std::string EndpointLead::name() const { return "endpoint " + owner_.record.port.text(); }

std::set<Ip> EndpointLead::addresses() const {
  std::set<Ip> addresses;
  for (const auto& each : owner_.record.addresses) addresses.insert(each.address);
  return addresses;
}

std::vector<GuestAddress> EndpointLead::guest() const {
  std::vector<GuestAddress> guest;
  for (const auto& each : owner_.record.addresses) {
    guest.push_back({.address = each.address, .new_address = each.to_locator});
  }
  return guest;
}

void EndpointLead::save() {
  owner_.record.lead = to_json();
  owner_.save();
}

void EndpointLead::reach(Phase phase) {
  if (phase <= reached_) return;
  reached_ = phase;
  save();
  owner_.changed();
}

void EndpointLead::ask_source(const char* method, nlohmann::json body, Nanoseconds timeout,
                              EndpointSource::Answer answer) {
  body["port"] = owner_.record.port.text();
  body["epoch"] = owner_.record.epoch;
  context_.peers.request(
      owner_.record.from, method, body,
      [answer = std::move(answer), alive = std::weak_ptr(alive_)](Result<nlohmann::json> reply) {
        if (!alive.expired()) answer(std::move(reply));
      },
      timeout);
}

// ---- before the guest stands ----

void EndpointLead::stage() {
  const std::string relay = "relay-" + owner_.record.name;
  ask_source("endpoint.stage",
             {{"on_the_way", agent::to_json(on_the_way_)},
              {"relay", relay.substr(0, 63)},
              {"relay_s", relay_limit_s_}},
             kEndpointStageTimeout, [this](const Result<nlohmann::json>& reply) {
               if (reached_ == Phase::undone) return;
               if (!reply) return refuse(reply.error().text);
               staged(*reply);
             });
}

void EndpointLead::refuse(const std::string& why) {
  refusal_ = why;
  owner_.changed();
}

void EndpointLead::staged(const nlohmann::json& told) {
  const auto connections = parse_connections(qemu::member(told, "connections"));
  if (!connections) return refuse(connections.error().text);
  inherited_ = *connections;
  for (const auto& each : array_field(told, "agreed")) {
    Bytes secret = from_hex(text_field_or(each, "secret", ""));
    if (secret.size() != crypto::KeyedHash::kKeySize) return refuse("the source tells no secret");
    correspondents_.push_back(
        {.host = text_field_or(each, "host", ""), .secret = std::move(secret)});
  }
  translate::Rules rules;
  for (const auto& each : owner_.record.addresses) {
    const Ip way = on_the_way_.at(each.address);
    for (const Ip& ours : {way, each.to_locator}) {
      rules.push_back({.kind = RuleKind::answer, .match = ours});
      rules.push_back({.kind = RuleKind::arrive, .match = ours, .becomes = each.address});
    }
  }
  std::ranges::sort(rules);
  const auto taken =
      context_.device.set(owner_.record.port.text(), owner_.record.name,
                          {.epoch = owner_.record.epoch, .phase = Phase::staged}, rules);
  if (!taken) return refuse(taken.error().text);
  make_relay(text_field_or(told, "port", ""));
}

void EndpointLead::make_relay(const std::string& port) {
  const nlohmann::json& described = qemu::member(owner_.record.described, "port");
  const std::string tenant = text_field_or(described, "tenant", kDefaultTenant);
  const auto made =
      context_.network.add_port({{"name", port}, {"kind", "uplink"}, {"tenant", tenant}});
  if (!made) return refuse(made.error().text);
  relay_ = port;
  interface_ = text_field_or(*made, "interface", "");
  try {
    os::be_relay(interface_);
  } catch (const SetupError& error) {
    return refuse(error.what());
  }
  save();
  context_.network.connect(
      {.a = context_.config.name + "/" + port, .b = owner_.record.from + "/" + port, .tenant = {}},
      [this, alive = std::weak_ptr(alive_)](const Result<>& done) {
        if (alive.expired() || reached_ == Phase::undone) return;
        if (!done) return refuse(done.error().text);
        reach(Phase::staged);
      });
}

void EndpointLead::undo() {
  reached_ = Phase::undone;
  save();
  take_back();
}

void EndpointLead::take_back() {
  ask_source("endpoint.undo", {}, kEndpointTimeout, [this](const Result<nlohmann::json>& reply) {
    if (!reply && !context_.peers.is_up(owner_.record.from)) {
      retry_ = context_.loop.after(kEndpointRetry, [this] { take_back(); });
      return;
    }
    remove_relay();
    if (const auto gone = context_.device.forget(owner_.record.port.text()); !gone) {
      spdlog::warn("guest {}: {}", owner_.record.name, gone.error().text);
    }
    is_over_ = true;
    owner_.changed();
  });
}

void EndpointLead::remove_relay() {
  if (relay_.empty()) return;
  try {
    os::stop_sending_by_relay(addresses());
  } catch (const SetupError& error) {
    spdlog::warn("relay for guest {}: {}", owner_.record.name, error.what());
  }
  context_.network.disconnect({.a = context_.config.name + "/" + relay_,
                               .b = owner_.record.from + "/" + relay_,
                               .tenant = {}},
                              [&network = context_.network, port = relay_](const Result<>&) {
                                (void)network.remove_port(port, {});
                              });
  relay_.clear();
  interface_.clear();
  save();
}

void EndpointLead::restart() {
  if (reached_ == Phase::undone) return take_back();
  if (owner_.record.wanted == Phase::undone) return undo();
  try {
    if (!relay_.empty()) os::be_relay(interface_);
    if (!relay_.empty() && reached_ >= Phase::forwarded) {
      os::send_by_relay(interface_, addresses());
    }
  } catch (const SetupError& error) {
    spdlog::error("the relay for guest {} is broken: {}", owner_.record.name, error.what());
  }
  if (reached_ >= Phase::forwarded) (void)write();
}

// ---- leading ----

void EndpointLead::lead() {
  if (std::exchange(is_leading_, true)) return;
  list();
}

void EndpointLead::list() {
  ask_source("endpoint.list", {}, kEndpointTimeout, [this](const Result<nlohmann::json>& reply) {
    if (reached_ >= Phase::forwarded) return;  // it was abandoned
    const auto done = reply ? inherit(*reply) : std::unexpected(reply.error());
    if (done) return forward();
    tell(done.error().text);
    retry_ = context_.loop.after(kEndpointRetry, [this] { list(); });
  });
}

void EndpointLead::tell(const std::string& trouble) {
  if (trouble != trouble_) spdlog::warn("guest {}: {}", owner_.record.name, trouble);
  trouble_ = trouble;
}

// The kernel here has the connections before anything of them comes.
Result<> EndpointLead::inherit(const nlohmann::json& told) {
  if (told.contains("connections")) {
    auto connections = parse_connections(told.at("connections"));
    if (!connections) return std::unexpected(connections.error());
    inherited_ = *std::move(connections);
    const auto more = told.find("left_out");
    const bool is_said = more != told.end() && more->is_number_unsigned();
    left_out_ = is_said ? more->get<std::size_t>() : 0;
  }
  return EndpointKernel::mark(inherited_, os::kInheritedMark);
}

Result<> EndpointLead::write() {
  os::MovedRules rules{.on_the_way = on_the_way_};
  if (!interface_.empty()) rules.relays.insert(interface_);
  for (const auto& each : correspondents_) {
    for (const Ip& guest : addresses()) {
      for (const Ip& correspondent : each.direct) {
        if (guest.is4() == correspondent.is4()) rules.direct.emplace(guest, correspondent);
      }
    }
  }
  return parts_.kernel.set(name(), rules);
}

// The correspondents' hosts hear of it at the same time.
void EndpointLead::forward() {
  auto done = write();
  try {
    if (!interface_.empty()) os::send_by_relay(interface_, addresses());
  } catch (const SetupError& error) {
    done = fail("{}", error.what());
  }
  if (!done) {
    tell(done.error().text);
    retry_ = context_.loop.after(kEndpointRetry, [this] { forward(); });
    return;
  }
  for (std::size_t i = 0; i < correspondents_.size(); ++i) update(i);
  ask_forward();
}

void EndpointLead::ask_forward() {
  if (reached_ >= Phase::forwarded) return;
  ask_source("endpoint.forward", {}, kEndpointTimeout, [this](const Result<nlohmann::json>& reply) {
    if (reply) {
      reach(Phase::forwarded);
      return reach_flipped();
    }
    tell(reply.error().text);
    retry_ = context_.loop.after(kEndpointRetry, [this] { ask_forward(); });
  });
}

void EndpointLead::update(std::size_t index) {
  Correspondents& each = correspondents_[index];
  each.is_asked = true;
  parts_.source.ask(
      each.host, "flow.update",
      {{"guest", owner_.record.port.text()},
       {"epoch", owner_.record.epoch},
       {"proof", proof_of(each.secret, "update", owner_.record.port.text(), owner_.record.epoch,
                          context_.config.name, on_the_way_)},
       {"connections", agent::to_json(inherited_, each.secret)}},
      [this, index, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (!alive.expired()) updated(index, reply);
      });
}

// One that does not answer is served by the relay meanwhile.
void EndpointLead::updated(std::size_t index, const Result<nlohmann::json>& reply) {
  Correspondents& each = correspondents_[index];
  each.was_told = true;
  each.is_asked = false;
  if (reply) {
    for (const auto& text : texts_field(*reply, "correspondents")) {
      if (const auto address = parse_ip(text)) each.direct.insert(*address);
    }
    if (const auto done = write(); !done) tell(done.error().text);
    save();
  } else {
    tell(fmt::format("host {}: {}", each.host, reply.error().text));
    update_retries_[index] = context_.loop.after(kEndpointRetry, [this, index] { update(index); });
  }
  reach_flipped();
}

void EndpointLead::reach_flipped() {
  if (reached_ >= Phase::forwarded && all_are_told()) reach(Phase::flipped);
}

bool EndpointLead::all_are_told() const {
  return std::ranges::all_of(correspondents_, &Correspondents::was_told);
}

std::set<Ends> EndpointLead::inherited_ends() const {
  std::set<Ends> ends;
  for (const auto& each : inherited_) ends.insert(ends_of(each));
  return ends;
}

// Its connections are those that it told of last.
void EndpointLead::abandon_source() {
  if (reached_ >= Phase::forwarded) return;
  if (const auto done = inherit(nlohmann::json::object()); !done) tell(done.error().text);
  if (const auto done = write(); !done) tell(done.error().text);
  for (std::size_t i = 0; i < correspondents_.size(); ++i) update(i);
  reached_ = all_are_told() ? Phase::flipped : Phase::forwarded;
  save();
}

void EndpointLead::uplink_stands(const nlohmann::json& told, std::function<void()> done) {
  const std::set<Ends> before = inherited_ends();
  if (const auto inherited = inherit(told); !inherited) tell(inherited.error().text);
  if (before != inherited_ends()) {
    for (std::size_t i = 0; i < correspondents_.size(); ++i) update(i);
  }
  done();
}

// ---- after it ----

void EndpointLead::uplink_is_here() {
  if (reached_ < Phase::forwarded) lead();
  // The agent may have ended between the last answer and its record.
  if (reached_ == Phase::forwarded && all_are_told()) reached_ = Phase::flipped;
  if (relay_until_ == 0) {
    relay_until_ = os::wall_clock_seconds() + relay_limit_s_;
    save();
  }
  for (std::size_t i = 0; i < correspondents_.size(); ++i) {
    const Correspondents& each = correspondents_[i];
    if (each.direct.empty() && !each.was_told && !each.is_asked) update(i);
  }
  watch();
}

Result<EndpointLead::Alive> EndpointLead::count() const {
  const auto connections = EndpointKernel::connections_of(addresses());
  if (!connections) return std::unexpected(connections.error());
  Alive alive;
  // What is not listed the correspondent's host does not know: it comes by the relay.
  const std::set<Ends> listed = inherited_ends();
  for (const auto& each : *connections) {
    if ((each.mark & os::kInheritedMark) == 0 || context_.network.guests().contains(each.peer)) {
      continue;
    }
    const bool is_direct = listed.contains(ends_of(each)) &&
                           std::ranges::any_of(correspondents_, [&](const auto& one) {
                             return one.direct.contains(each.peer);
                           });
    ++(is_direct ? alive.direct : alive.relayed);
  }
  // Tracking here knows those only that have said something since: they may all live.
  alive.relayed = std::max(alive.relayed, left_out_);
  return alive;
}

void EndpointLead::watch() {
  watch_ = context_.loop.after(kEndpointWatch, [this] { watch(); });
  if (reached_ < Phase::forwarded) return;
  const auto alive = count();
  if (!alive) return tell(alive.error().text);
  alive_now_ = *alive;
  const bool is_late = is_given_up_ || os::wall_clock_seconds() >= relay_until_;
  if (!relay_.empty() && (alive->relayed == 0 || is_late)) {
    return end_relay(alive->relayed, is_late);
  }
  if (relay_.empty() && (alive->direct == 0 || is_given_up_)) end_correspondents();
}

bool EndpointLead::give_up() {
  if (reached_ < Phase::flipped) return false;
  is_given_up_ = true;
  watch();
  return true;
}

// What it still served is reset: its packets are refused from now on.
void EndpointLead::end_relay(std::size_t relayed, bool is_late) {
  ask_source("endpoint.end", {{"reset", relayed}}, kEndpointTimeout,
             [this, relayed, is_late](const Result<nlohmann::json>& reply) {
               if (!reply) tell(reply.error().text);
               // A source that is gone ends its own when it is time.
               if (relay_.empty() || (!reply && !is_late)) return;
               if (relayed > 0) {
                 spdlog::warn("guest {}: the time of its relay is over, {} connections are reset",
                              owner_.record.name, relayed);
               }
               cut_ += relayed;
               remove_relay();
               if (const auto done = write(); !done) tell(done.error().text);
               context_.events.publish("relay", {{"guest", owner_.record.name},
                                                 {"event", "ended"},
                                                 {"connections_reset", relayed}});
             });
}

void EndpointLead::end_correspondents() {
  for (std::size_t i = 0; i < correspondents_.size(); ++i) {
    const Correspondents& each = correspondents_[i];
    if (each.is_ended) continue;
    parts_.source.ask(
        each.host, "flow.end",
        {{"guest", owner_.record.port.text()},
         {"proof", proof_of(each.secret, "end", owner_.record.port.text(), owner_.record.epoch,
                            context_.config.name, on_the_way_)}},
        [this, i, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
          if (alive.expired() || !reply) return;  // at the next look, again
          correspondents_[i].is_ended = true;
          end_if_all();
        });
  }
  end_if_all();
}

// What stays is the guest's new address.
void EndpointLead::end_if_all() {
  if (is_over_ || !std::ranges::all_of(correspondents_, &Correspondents::is_ended)) return;
  watch_.reset();
  translate::Rules rules;
  for (const auto& each : owner_.record.addresses) {
    rules.push_back({.kind = RuleKind::answer, .match = each.to_locator});
    rules.push_back({.kind = RuleKind::arrive, .match = each.to_locator, .becomes = each.address});
  }
  std::ranges::sort(rules);
  const std::string port = owner_.record.port.text();
  const auto done =
      is_given_up_
          ? Result<>{}
          : context_.device.set(port, owner_.record.name,
                                {.epoch = owner_.record.epoch, .phase = Phase::settled}, rules);
  if (!done) tell(done.error().text);
  parts_.kernel.drop(name());
  reached_ = Phase::settled;
  is_over_ = true;
  context_.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) owner_.changed();
  });
}

// ---- telling and keeping ----

std::string EndpointLead::missing() const {
  std::vector<std::string> hosts;
  for (const auto& each : correspondents_) {
    if (reached_ >= Phase::forwarded && each.direct.empty()) hosts.push_back("host " + each.host);
  }
  return fmt::format("{}", fmt::join(hosts, "; "));
}

nlohmann::json EndpointLead::describe() const {
  nlohmann::json hosts = nlohmann::json::array();
  for (const auto& each : correspondents_) hosts.push_back(each.host);
  nlohmann::json json = {{"strategy", "endpoint"},
                         {"addresses", agent::to_json(guest())},
                         {"on_the_way", agent::to_json(on_the_way_)},
                         {"correspondents", hosts},
                         {"connections", inherited_.size()}};
  if (reached_ >= Phase::forwarded) {
    json["alive"] = {{"direct", alive_now_.direct}, {"relayed", alive_now_.relayed}};
    json["reset"] = cut_;
    if (!relay_.empty()) json["relay"] = {{"port", relay_}, {"until", relay_until_}};
  }
  return json;
}

nlohmann::json EndpointLead::to_json() const {
  nlohmann::json correspondents = nlohmann::json::array();
  for (const auto& each : correspondents_) {
    nlohmann::json direct = nlohmann::json::array();
    for (const Ip& address : each.direct) direct.push_back(address.text());
    correspondents.push_back({{"host", each.host},
                              {"secret", to_hex(each.secret)},
                              {"direct", direct},
                              {"ended", each.is_ended}});
  }
  return {{"on_the_way", agent::to_json(on_the_way_)},
          {"correspondents", correspondents},
          {"connections", agent::to_json(inherited_)},
          {"left_out", left_out_},
          {"relay", relay_},
          {"interface", interface_},
          {"relay_limit_s", relay_limit_s_},
          {"relay_until", relay_until_}};
}

void EndpointLead::load(const nlohmann::json& json) {
  const auto on_the_way = parse_addresses(qemu::member(json, "on_the_way"));
  if (!on_the_way) fail_setup("relocation: {}", on_the_way.error().text);
  on_the_way_ = *on_the_way;
  for (const auto& each : array_field(json, "correspondents")) {
    Correspondents known{.host = text_field_or(each, "host", ""),
                         .secret = from_hex(text_field_or(each, "secret", "")),
                         .is_ended = qemu::flag_at(each, "ended")};
    for (const auto& text : texts_field(each, "direct")) {
      if (const auto address = parse_ip(text)) known.direct.insert(*address);
    }
    known.was_told = !known.direct.empty();
    correspondents_.push_back(std::move(known));
  }
  if (const auto inherited = parse_connections(qemu::member(json, "connections"))) {
    inherited_ = *inherited;
  }
  left_out_ = json.value("left_out", left_out_);
  relay_ = text_field_or(json, "relay", "");
  interface_ = text_field_or(json, "interface", "");
  relay_limit_s_ = json.value("relay_limit_s", relay_limit_s_);
  relay_until_ = json.value("relay_until", relay_until_);
}

}  // namespace godwit::agent

#include "agent/endpoint_lead.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/connection_list.hh"
#include "crypto/keyed_hash.hh"
#include "os/relay_route.hh"
#include "qemu/json.hh"
#include "translate/rule.hh"

namespace godwit::agent {

using translate::Phase;
using translate::RuleKind;

namespace {

constexpr Nanoseconds kEndpointStageTimeout = seconds(10);
constexpr Nanoseconds kEndpointRetry = seconds(1);
// More hosts than fleets have: who names further ones makes them up.
constexpr std::size_t kMostHosts = 1024;

}  // namespace

EndpointLead::EndpointLead(const Context& context, EndpointParts& parts, Owner owner)
    : context_(context), parts_(parts), owner_(std::move(owner)), reached_(owner_.record.reached) {
  load(owner_.record.lead);
  parts_.relays.add(owner_.record.port, *this);
}

EndpointLead::~EndpointLead() { parts_.relays.remove(owner_.record.port, *this); }

std::string EndpointLead::name() const { return "endpoint " + owner_.record.port.text(); }

std::set<Ip> EndpointLead::addresses() const {
  std::set<Ip> addresses;
  for (const auto& each : owner_.record.addresses) addresses.insert(each.address);
  return addresses;
}

std::vector<GuestAddress> EndpointLead::guest() const {
  std::vector<GuestAddress> guest;
  for (const auto& each : owner_.record.addresses) {
    guest.push_back({.address = each.address});
    if (on_the_way_.contains(each.address)) guest.back().new_address = each.to_locator;
  }
  return guest;
}

// By themselves: there may be 10,000, and the rest is written in each step.
void EndpointLead::save_connections() {
  if (std::exchange(are_saved_, true)) return;
  context_.store.put(kConnectionsKind, owner_.record.port.text(), lists_of(inherited_));
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
  // What it came by before may still serve it.
  const bool is_again = std::ranges::any_of(
      owner_.record.addresses, [](const auto& each) { return each.from_locator.has_value(); });
  const std::string relay =
      is_again ? fmt::format("relay-{}-{}", owner_.record.epoch, owner_.record.name)
               : "relay-" + owner_.record.name;
  parts_.relays.guest_is_back(owner_.record.port);
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
  const auto connections = parse_lists(told);
  if (!connections) return refuse(connections.error().text);
  inherited_ = *connections;
  renames_ = qemu::flag_at(told, "renames");
  agreed_ = inherited_ends();
  // Most of them live when the guest stands, and that is not the time for all of them.
  if (const auto done = mark_inherited(); !done) return refuse(done.error().text);
  for (const auto& each : array_field(told, "agreed")) {
    Bytes secret = from_hex(text_field_or(each, "secret", ""));
    if (secret.size() != crypto::KeyedHash::kKeySize) return refuse("the source tells no secret");
    const std::string host = text_field_or(each, "host", "");
    correspondents_.push_back({.host = host,
                               .with = host,
                               .secret = std::move(secret),
                               .knows_if_early = qemu::flag_at(each, "knows_early")});
  }
  translate::Rules rules;
  for (const auto& each : owner_.record.addresses) {
    const auto way = on_the_way_.find(each.address);
    if (way == on_the_way_.end()) continue;  // at home
    for (const Ip& ours : {way->second, each.to_locator}) {
      rules.push_back({.kind = RuleKind::answer, .match = ours});
      rules.push_back({.kind = RuleKind::arrive, .match = ours, .becomes = each.address});
    }
  }
  std::ranges::sort(rules);
  const auto taken =
      rules.empty()
          ? Result<>{}
          : context_.device.set(owner_.record.port.text(), owner_.record.name,
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
    os::be_relay(interface_, addresses());
  } catch (const SetupError& error) {
    return refuse(error.what());
  }
  if (const auto done = parts_.kernel.await(name(), addresses(), interface_); !done) {
    return refuse(done.error().text);
  }
  save_connections();
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
    parts_.kernel.drop(name());
    if (const auto done = forget_others(std::exchange(inherited_, {})); !done) {
      tell(done.error().text);
    }
    if (const auto gone = context_.device.forget(owner_.record.port.text()); !gone) {
      spdlog::warn("guest {}: {}", owner_.record.name, gone.error().text);
    }
    context_.store.erase(kConnectionsKind, owner_.record.port.text());
    is_over_ = true;
    owner_.changed();
  });
}

// The source sends it as it asks for the commit, which may come later.
Result<> EndpointLead::uplink_is_held() {
  try {
    os::receive_by_relay(interface_, addresses(),
                         context_.network.held_interface(owner_.record.port));
  } catch (const SetupError& error) {
    return fail("{}", error.what());
  }
  return {};
}

void EndpointLead::remove_relay() {
  if (relay_.empty()) return;
  try {
    os::stop_receiving_by_relay(interface_, addresses());
    os::stop_sending_by_relay(addresses());
  } catch (const SetupError& error) {
    spdlog::warn("relay for guest {}: {}", owner_.record.name, error.what());
  }
  parts_.relays.part(relay_, owner_.record.from);
  relay_.clear();
  interface_.clear();
  save();
}

void EndpointLead::restart() {
  if (reached_ == Phase::undone) return take_back();
  if (owner_.record.wanted == Phase::undone) return undo();
  try {
    if (!relay_.empty()) os::be_relay(interface_, addresses());
    if (!relay_.empty() && reached_ >= Phase::forwarded) {
      os::send_by_relay(interface_, addresses());
    }
  } catch (const SetupError& error) {
    spdlog::error("the relay for guest {} is broken: {}", owner_.record.name, error.what());
  }
  if (reached_ >= Phase::forwarded) (void)write();
}

// ---- leading ----

// A correspondent's packets come one round trip earlier than if this were said when all is done
// here.
void EndpointLead::guest_runs() { tell_early(); }

// The source's host sends on what comes to it when its uplink is told to stand, which is next.
void EndpointLead::lead() {
  if (reached_ >= Phase::forwarded) return;
  auto done = write();
  try {
    if (!interface_.empty()) {
      os::send_by_relay(interface_, addresses());
      os::stop_receiving_by_relay(interface_, addresses());  // it is routed for all
    }
  } catch (const SetupError& error) {
    done = fail("{}", error.what());
  }
  if (!done) {
    tell(done.error().text);
    retry_ = context_.loop.after(kEndpointRetry, [this] {
      lead();
      owner_.changed();
    });
    return;
  }
  reached_ = Phase::forwarded;  // kept when the uplink is here
  tell_early();
}

// The kernel here does not know yet who has moved: what comes from a correspondent's place on the
// way would be a stranger's to the guest, who resets it. A host of such a one says that it is too
// early.
void EndpointLead::tell_early() {
  update_all(
      [](const auto& each) { return each.knows_if_early && !each.is_asked && !each.was_told; });
}

void EndpointLead::update_all(const std::function<bool(const Correspondents&)>& are_meant) {
  for (std::size_t i = 0; i < correspondents_.size(); ++i) {
    if (are_meant(correspondents_[i])) update(i);
  }
}

void EndpointLead::tell(const std::string& trouble) {
  if (trouble != trouble_) spdlog::warn("guest {}: {}", owner_.record.name, trouble);
  trouble_ = trouble;
}

// The kernel here has the connections before anything of them comes.
Result<> EndpointLead::inherit(const nlohmann::json& told) {
  if (told.contains("connections")) {
    auto connections = parse_lists(told);
    if (!connections) return std::unexpected(connections.error());
    are_saved_ = false;
    const auto before = std::exchange(inherited_, *std::move(connections));
    const auto more = told.find("left_out");
    const bool is_said = more != told.end() && more->is_number_unsigned();
    left_out_ = is_said ? more->get<std::size_t>() : 0;
    if (auto done = forget_others(before); !done) return done;
  }
  if (auto done = mark_inherited(); !done) return done;
  return parts_.associations.adopt(qemu::member(told, "associations"), addresses(), inherited_);
}

// What comes by the relay before the list does is taken for renamed.
Result<> EndpointLead::mark_inherited() {
  std::vector<os::Connection> own, renamed;
  for (const auto& each : inherited_) (is_renamed(each) ? renamed : own).push_back(each);
  auto done = EndpointKernel::mark(own, os::kInheritedMark, os::kRenamedMark | os::kNewAddressMark);
  if (!done) return done;
  return EndpointKernel::mark(renamed, os::kInheritedMark | os::kRenamedMark, os::kNewAddressMark);
}

// What has ended meanwhile would be waited for; of a list that is not whole nobody knows. At home
// it may be known for other reasons.
Result<> EndpointLead::forget_others(const std::vector<os::Connection>& before) {
  if (left_out_ > 0) return {};
  const std::set<Ends> listed = inherited_ends();
  std::vector<os::Connection> ended;
  for (const auto& each : before) {
    const bool is_ours = !is_home() || is_renamed(each);
    if (is_ours && !listed.contains(ends_of(each))) ended.push_back(each);
  }
  return ended.empty() ? Result<>{} : parts_.kernel.forget(std::move(ended));
}

// What is agreed has its label already.
std::vector<os::Connection> EndpointLead::began_since() const {
  std::vector<os::Connection> began;
  for (const auto& each : inherited_) {
    if (!agreed_.contains(ends_of(each)) && !is_renamed(each)) began.push_back(each);
  }
  return began;
}

Result<> EndpointLead::write() {
  os::MovedRules rules{.on_the_way = on_the_way_};
  for (const Ip& address : addresses()) {
    if (!on_the_way_.contains(address)) rules.at_home.insert(address);
  }
  if (!interface_.empty()) rules.relays.insert(interface_);
  if (!interface_.empty() && renames_) rules.renaming.insert(interface_);
  for (const auto& each : correspondents_) {
    for (const Ip& guest : addresses()) {
      for (const Ip& correspondent : each.direct) {
        if (guest.is4() == correspondent.is4()) rules.direct.emplace(guest, correspondent);
      }
    }
  }
  return parts_.kernel.set(name(), rules);
}

void EndpointLead::update(std::size_t index) {
  Correspondents& each = correspondents_[index];
  if (is_over_here()) return;
  each.is_asked = true;
  parts_.source.ask(
      each.host, "flow.update",
      {{"guest", owner_.record.port.text()},
       {"with", each.with},
       {"epoch", owner_.record.epoch},
       {"early", !stands_},
       {"proof", proof_of(each.secret, "update", owner_.record.port.text(), owner_.record.epoch,
                          context_.config.name, on_the_way_)},
       {"connections", agent::to_json(began_since(), each.secret)}},
      [this, index, alive = std::weak_ptr(alive_)](const Result<nlohmann::json>& reply) {
        if (!alive.expired()) updated(index, reply);
      });
}

// One that does not answer is served by the relay meanwhile.
void EndpointLead::updated(std::size_t index, const Result<nlohmann::json>& reply) {
  Correspondents& each = correspondents_[index];
  each.is_asked = false;
  if (reply && qemu::flag_at(*reply, "too_early")) {
    if (stands_) update(index);  // it does since
    return;
  }
  each.was_told = true;
  if (reply) {
    each.has_answered = true;
    for (const auto& text : texts_field(*reply, "correspondents")) {
      const auto address = parse_ip(text);
      if (address) each.direct.insert(*address), each.awaited.erase(*address);
    }
    if (const auto done = write(); !done) tell(done.error().text);
  } else {
    tell(fmt::format("host {}: {}", each.host, reply.error().text));
  }
  if (!reply || !each.awaited.empty()) {
    update_retries_[index] = context_.loop.after(kEndpointRetry, [this, index] { update(index); });
  }
  if (reply) {
    for (const std::size_t next : moved_on(index, *reply)) update(next);
    if (reached_ >= Phase::flipped) save();
  }
  reach_flipped();
}

// Correspondents that move, too, are where their next host is told that they are (associations.hh).
std::vector<std::size_t> EndpointLead::moved_on(std::size_t index, const nlohmann::json& reply) {
  std::vector<std::size_t> begun;
  for (const auto& [host, addresses] : qemu::member(reply, "passed").items()) {
    const std::string with = correspondents_[index].with;
    const bool is_known = std::ranges::any_of(
        correspondents_, [&](const auto& each) { return each.host == host && each.with == with; });
    if (is_known || correspondents_.size() >= kMostHosts) continue;
    begun.push_back(correspondents_.size());
    correspondents_.push_back({.host = host,
                               .with = with,
                               .secret = Bytes(correspondents_[index].secret),
                               .awaited = addresses_in(addresses)});
  }
  return begun;
}

bool EndpointLead::is_direct(const Ip& correspondent) const {
  const auto is_in = [&](auto member) {
    return std::ranges::any_of(correspondents_, [&](const Correspondents& each) {
      return (each.*member).contains(correspondent);
    });
  };
  return is_in(&Correspondents::direct) && !is_in(&Correspondents::awaited);
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
  if (stands_) return;
  lead();
  stand(nlohmann::json::object());
  save();
}

void EndpointLead::uplink_stands(const nlohmann::json& told, std::function<void()> done) {
  stand(told);
  done();
}

// The kernel here knows by then who has moved, too.
void EndpointLead::stand(const nlohmann::json& told) {
  stands_ = true;
  const std::set<Ends> before = inherited_ends();
  if (const auto done = inherit(told); !done) tell(done.error().text);
  const bool is_news = before != inherited_ends();
  update_all([&](const auto& each) { return is_news || !(each.is_asked || each.was_told); });
  if (reached_ == Phase::forwarded && all_are_told()) reached_ = Phase::flipped;
}

}  // namespace godwit::agent

#include "agent/endpoint_kernel.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent/connection_list.hh"
#include "os/connection_tracking.hh"
#include "os/segment.hh"

namespace godwit::agent {

void EndpointKernel::start() {
  is_started_ = true;
  network_.guests_changed = [this] {
    update();
    asked_.update();
  };
  if (all().empty()) (void)os::set_moved_rules({});  // of a life before
  asked_.start();
  look();
}

os::MovedRules EndpointKernel::all() const {
  os::MovedRules all;
  for (const auto& [owner, part] : parts_) {
    all.on_the_way.insert(part.on_the_way.begin(), part.on_the_way.end());
    all.direct.insert(part.direct.begin(), part.direct.end());
    all.new_address.insert(part.new_address.begin(), part.new_address.end());
    all.at_home.insert(part.at_home.begin(), part.at_home.end());
    all.relays.insert(part.relays.begin(), part.relays.end());
    all.renaming.insert(part.renaming.begin(), part.renaming.end());
    all.moved.insert(part.moved.begin(), part.moved.end());
    all.coming.insert(part.coming.begin(), part.coming.end());
    all.refused.insert(part.refused.begin(), part.refused.end());
  }
  for (const auto& [guest, address] : network_.new_addresses()) all.new_address[guest] = address;
  all.local = network_.guests();
  // Both ends may be away: packets are for a guest here as it is on the way.
  for (const auto& [pair, guest] : std::map(all.coming)) {
    const auto here = all.on_the_way.find(pair.second);
    if (here != all.on_the_way.end())
      all.coming.emplace(std::pair(pair.first, here->second), guest);
  }
  std::erase_if(all.moved, [&](const auto& each) { return all.local.contains(each.first.second); });
  return all;
}

Result<> EndpointKernel::write() {
  const os::MovedRules wanted = all();
  if (wanted == written_ || (wanted.empty() && written_.empty())) return {};
  auto done = os::change_moved_rules(written_, wanted);
  if (!done) done = os::set_moved_rules(wanted);  // somebody has changed them
  if (done) written_ = wanted;
  return done;
}

// Tables and timeouts of the first guest on a host took up to 80 ms (2026-11), in which packets for
// it would wait.
Result<> EndpointKernel::await(const std::string& owner, const std::set<Ip>& guests,
                               const std::string& relay) {
  awaited_[owner] = guests;
  track();
  return set(owner, {.relays = {relay}});
}

bool EndpointKernel::is_on_its_way(const Ip& guest) const {
  return std::ranges::any_of(
      parts_, [&](const auto& part) { return part.second.on_the_way.contains(guest); });
}

Result<> EndpointKernel::set(const std::string& owner, const os::MovedRules& rules) {
  const auto found = parts_.find(owner);
  const auto before = found == parts_.end() ? std::nullopt : std::optional(found->second);
  parts_[owner] = rules;
  if (!is_started_) return {};
  auto done = write();
  if (done) return done;
  if (before) {
    parts_[owner] = *before;
  } else {
    parts_.erase(owner);
  }
  return done;
}

void EndpointKernel::drop(const std::string& owner) {
  awaited_.erase(owner);
  if (parts_.erase(owner) != 0 && is_started_) update();
}

void EndpointKernel::track() {
  std::set<Ip> guests = network_.guests();
  for (const auto& [owner, awaited] : awaited_) guests.insert(awaited.begin(), awaited.end());
  if (guests == tracked_) return;
  try {
    os::track_guests(guests);
    tracked_ = guests;
  } catch (const SetupError& error) {
    spdlog::warn("connections of guests are not tracked: {}", error.what());
  }
}

void EndpointKernel::look() {
  const auto is_there = os::has_moved_rules();
  if (is_there && !*is_there) written_ = {};  // written anew
  update();
  asked_.look();
  timer_ = loop_.after(kLookInterval, [this] { look(); });
}

void EndpointKernel::update() {
  track();
  const auto done = write();
  const std::string trouble = done ? std::string() : done.error().text;
  if (!trouble.empty() && trouble != trouble_) {
    spdlog::error("connections of guests that have moved: {}", trouble);
  }
  trouble_ = trouble;
}

Result<> EndpointKernel::mark(std::vector<os::Connection> connections, std::uint32_t bits,
                              std::uint32_t cleared) try {
  std::set<Ip> guests;
  for (const auto& each : connections) guests.insert(each.guest);
  const auto tracked = os::connections_of(guests);  // in another order than ends_of()'s
  std::map<Ends, const os::Connection*> known;
  for (const auto& each : tracked) known.emplace(ends_of(each), &each);
  std::erase_if(connections, [&](auto& each) {
    if (const auto found = known.find(ends_of(each)); found != known.end()) each = *found->second;
    const bool is_marked = (each.mark & (bits | cleared)) == bits;
    each.mark = (each.mark & ~cleared) | bits;
    return is_marked;
  });
  return connections.empty() ? Result<>{} : os::add_connections(connections);
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Result<> EndpointKernel::forget(std::vector<os::Connection> connections) const try {
  const std::set<Ip> guests = network_.guests(), own = os::own_addresses();
  std::erase_if(connections, [&](const auto& each) {
    return guests.contains(each.peer) || own.contains(each.peer);
  });
  os::remove_connections(connections);
  return {};
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

Result<std::vector<os::Connection>> EndpointKernel::connections_of(const std::set<Ip>& guests) try {
  auto connections = os::connections_of(guests);
  std::erase_if(connections, [](const auto& each) { return each.is_over() || !can_be_told(each); });
  return connections;
} catch (const SetupError& error) {
  return fail("{}", error.what());
}

// As the rules have it (os/moved_connections.cc).
Result<std::vector<os::Connection>> EndpointKernel::named_connections_of(
    const std::set<Ip>& guests) const {
  auto connections = connections_of(guests);
  if (!connections) return connections;
  const os::MovedRules rules = all();
  for (auto& each : *connections) {
    const bool is_renamed = (each.mark & (os::kNewAddressMark | os::kRenamedMark)) != 0;
    const bool is_own = (each.mark & os::kInheritedMark) != 0 || rules.local.contains(each.peer);
    const bool has_another = rules.new_address.contains(each.guest) && !is_own;
    each.mark = is_renamed || has_another ? os::kRenamedMark : 0;
  }
  return connections;
}

bool EndpointKernel::renames(const std::set<Ip>& guests) const {
  const os::MovedRules rules = all();
  return std::ranges::any_of(guests, [&](const Ip& guest) {
    return rules.new_address.contains(guest) || rules.at_home.contains(guest);
  });
}

}  // namespace godwit::agent

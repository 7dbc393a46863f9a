#include "fabric_scenario.hh"

#include <fmt/format.h>

namespace godwit::sim {
namespace {

constexpr Nanoseconds kStorm = seconds(6);
// Moves end; what was cut comes back, with its sessions; then the lease of those that left ends.
constexpr Nanoseconds kMoving = seconds(5), kCut = seconds(20), kLease = seconds(32);
// Of one host; twice what any run has. A circle doubles them with every round.
constexpr std::uint64_t kMostDatagrams = 40'000;
constexpr Nanoseconds kHearing = seconds(4);  // with a router's questions for neighbours

Weather draw_weather(std::uint64_t seed) {
  Dice dice(seed * 9733 + 7);
  Weather weather;
  if (dice.happens(0.5)) weather.duplicates = 0.1;
  if (dice.happens(0.5)) return weather;  // fine
  if (dice.happens(0.5)) weather.loss = 0.001 * static_cast<double>(dice.between(1, 100));
  weather.reorders = dice.happens(0.3);
  weather.cuts = dice.happens(0.6);
  weather.restarts = dice.happens(0.6);
  return weather;
}

bool is_full(std::uint64_t seed) { return seed % FabricScenario::kFullEvery == 0; }
std::size_t draw_hosts(std::uint64_t seed) { return is_full(seed) ? 50 : 3 + seed % 8; }
std::size_t draw_ports(std::uint64_t seed) { return is_full(seed) ? 500 : 20 + seed * 7 % 60; }

}  // namespace

FabricScenario::FabricScenario(std::uint64_t seed, bool is_traced)
    : dice_(seed * 137 + 11),
      world_(seed, draw_weather(seed), draw_hosts(seed)),
      plan_(dice_, draw_ports(seed)),
      agents_(plan_, world_, dice_, [this](std::string text) { fail(std::move(text)); }),
      traffic_(
          plan_, world_, dice_,
          [this](std::size_t guest, Bytes frame) {
            agents_.send(plan_.guests[guest].resident, std::move(frame));
          },
          [this](std::string text) { fail(std::move(text)); }) {
  world_.is_traced = is_traced;
  std::map<std::size_t, std::size_t> guest_of;
  for (std::size_t i = 0; i < plan_.guests.size(); ++i) guest_of[plan_.guests[i].resident] = i;
  world_.on_frame = [this, guest_of](const std::string& host, PortId port, BytesView frame) {
    if (const auto resident = agents_.guest_at(host, port)) {
      traffic_.arrived(guest_of.at(*resident), frame);
    }
  };
  world_.on_event = [this](const std::string& host, const wire::Event& event) {
    agents_.event(host, event);
  };
  for (const PlannedSegment& segment : plan_.segments) spare_.push_back(segment.spare);
  reconnects_ = !world_.weather().is_calm() || dice_.happens(0.3);
  traffic_.keeps_order = world_.weather().is_calm() && !reconnects_;
  pace_ = milliseconds(800) / static_cast<int>(world_.names().size());
  outcome_.ports = plan_.ports.size();
  outcome_.full = is_full(seed);
}

void FabricScenario::fail(std::string text) {
  if (!outcome_.failure.empty()) return;
  outcome_.failure = fmt::format("at {:.3f} ms: {}", to_ms(world_.now() - World::kBegin), text);
  world_.trace("{}", text);
  world_.is_over = true;
}

void FabricScenario::run_for(Nanoseconds time) {
  if (!outcome_.failure.empty()) return;
  world_.run_until(world_.now() + time, [this] {
    if (world_.datagrams > kMostDatagrams * world_.names().size())
      fail("frames go round from host to host");
  });
  if (world_.nonce_reused) fail("a nonce was used twice");
  for (Host* host : world_.hosts()) {
    if (host->looped() > 0) fail(fmt::format("frames went round at {}", host->name()));
  }
}

// ---- the storm ----

void FabricScenario::talk(std::size_t from) {
  if (!storm_) return;
  const PlannedGuest& guest = plan_.guests[from];
  const auto& near = plan_.segments[guest.segment].guests;
  const std::size_t one = near[dice_.between(0, near.size() - 1)];
  const std::size_t any = dice_.between(0, plan_.guests.size() - 1);
  switch (dice_.between(0, 4)) {
    case 0:
      traffic_.broadcast(from);
      break;
    case 1:
    case 2:
      if (one != from) traffic_.unicast(from, one);
      break;
    default:
      if (any != from && plan_.guests[any].tenant == guest.tenant) traffic_.ask(from, any);
      break;
  }
  world_.after(dice_.between(milliseconds(5), milliseconds(120)), [this, from] { talk(from); });
}

void FabricScenario::ask_for_moves() {
  if (!storm_) return;
  const std::size_t resident = dice_.between(0, plan_.residents.size() - 1);
  const auto& names = world_.names();
  agents_.move(resident, names[dice_.between(0, names.size() - 1)]);
  if (dice_.happens(0.25)) {
    world_.after(dice_.between(Nanoseconds{}, milliseconds(400)),
                 [this, resident] { agents_.abort(resident); });
  }
  world_.after(dice_.between(Nanoseconds{}, pace_), [this] { ask_for_moves(); });
}

void FabricScenario::trouble() {
  if (!storm_) return;
  const auto& names = world_.names();
  if (world_.weather().cuts && dice_.happens(0.5)) cut();
  if (world_.weather().restarts && dice_.happens(0.3)) {
    agents_.restart(names[dice_.between(0, names.size() - 1)]);
  }
  if (reconnects_ && dice_.happens(0.5)) connect_elsewhere();
  world_.after(dice_.between(Nanoseconds{}, 6 * pace_), [this] { trouble(); });
}

// Where it matters: between a move's hosts, or those of a wire.
void FabricScenario::cut() {
  const PlannedPort& port = plan_.ports[dice_.between(0, plan_.ports.size() - 1)];
  const std::string a = agents_.host_of(port.resident);
  const std::string b = dice_.happens(0.5) || !port.peer
                            ? agents_.target_of(port.resident)
                            : agents_.host_of(plan_.ports[*port.peer].resident);
  if (a == b) return;
  ++outcome_.cuts;
  if (dice_.happens(0.3)) {  // the session alone
    world_.cut(a, b);
    return world_.after(dice_.between(milliseconds(1), milliseconds(500)), [this, a, b] {
      if (!world_.is_cut(a, b)) world_.connect(a, b);
    });
  }
  world_.cut_link(a, b);
  const Nanoseconds length = dice_.happens(0.1) ? dice_.between(seconds(15), seconds(20))
                                                : dice_.between(milliseconds(10), seconds(3));
  world_.after(length, [this, a, b] { world_.heal_link(a, b); });
}

void FabricScenario::connect_elsewhere() {
  const std::size_t index = dice_.between(0, plan_.guests.size() - 1);
  const PlannedGuest& guest = plan_.guests[index];
  auto& spare = spare_[guest.segment];
  if (spare.empty()) return;
  const auto left = agents_.connect_elsewhere(guest.port, spare.front());
  if (!left) return;
  spare.front() = *left;
  traffic_.reconnected(index);
}

// ---- calm ----

void FabricScenario::calm() {
  storm_ = false;
  const bool was_cut = world_.weather().cuts;
  world_.calm();
  run_for(kMoving);
  if (traffic_.keeps_order) expect_heard(0);
  run_for(was_cut ? kCut + kLease : kLease);
  if (!outcome_.failure.empty()) return;
  if (auto wrong = agents_.disorder(); !wrong.empty()) fail(std::move(wrong));
}

void FabricScenario::expect_heard(std::size_t first) {
  if (auto wrong = traffic_.unheard(first); !wrong.empty()) fail(std::move(wrong));
}

void FabricScenario::spread(const std::function<void(std::size_t)>& act) {
  for (std::size_t i = 0; i < plan_.guests.size(); ++i) {
    world_.after(dice_.between(Nanoseconds{}, milliseconds(200)), [act, i] { act(i); });
  }
}

// Questions to one guest are not asked at once: a router keeps so many frames for a neighbour that
// has not answered yet, and no more.
void FabricScenario::expect_reachability() {
  const std::size_t first = traffic_.messages();
  spread([this](std::size_t guest) { traffic_.broadcast(guest); });
  run_for(kHearing);
  for (std::size_t from = 0; from < plan_.guests.size(); ++from) {
    for (std::size_t to = 0; to < plan_.guests.size(); ++to) {
      if (from == to || plan_.guests[from].tenant != plan_.guests[to].tenant) continue;
      world_.after(dice_.between(Nanoseconds{}, seconds(2)),
                   [this, from, to] { traffic_.ask(from, to); });
    }
  }
  run_for(seconds(2) + kHearing);
  // By now all switches know where everybody is, and every router.
  const std::uint64_t overheard = traffic_.overheard();
  spread([this](std::size_t guest) {
    for (const std::size_t other : plan_.segments[plan_.guests[guest].segment].guests) {
      if (other != guest) traffic_.unicast(guest, other);
    }
  });
  spread([this](std::size_t guest) {
    const std::size_t other = dice_.between(0, plan_.guests.size() - 1);
    if (other != guest && plan_.may_reach(plan_.guests[guest], plan_.guests[other])) {
      traffic_.ask(guest, other);
    }
  });
  run_for(kHearing);
  expect_heard(first);
  if (const auto frames = traffic_.overheard() - overheard; frames > 0) {
    fail(fmt::format("{} frames were at others than whom they were for", frames));
  }
}

FabricOutcome FabricScenario::run() {
  for (const std::string& name : world_.names()) world_.host(name).start();
  for (const std::string& a : world_.names()) {
    for (const std::string& b : world_.names()) {
      if (a < b) world_.connect(a, b);
    }
  }
  agents_.boot();
  run_for(seconds(1));  // keys
  for (std::size_t i = 0; i < plan_.guests.size(); ++i) talk(i);
  ask_for_moves();
  trouble();
  run_for(kStorm);
  calm();
  if (outcome_.failure.empty()) expect_reachability();
  world_.trace("{} datagrams", world_.datagrams);
  outcome_.moves = agents_.moves;
  outcome_.aborts = agents_.aborts;
  outcome_.restarts = agents_.restarts;
  outcome_.heard = traffic_.heard();
  return outcome_;
}

}  // namespace godwit::sim

#include "fleet_scenario.hh"

#include <fmt/format.h>

namespace godwit::sim {
namespace {

constexpr Nanoseconds kStorm = seconds(12);
// The longest that bounds may follow each other: a move that was just begun, and a lease.
constexpr Nanoseconds kCalm = migrate::kPreparingBound + migrate::kDrainingBound + seconds(30);
constexpr int kFrames = 5;  // each way, over a wire in the calm

Weather draw_weather(std::uint64_t seed) {
  Dice dice(seed * 6271 + 3);
  Weather weather;
  if (dice.happens(0.4)) weather.loss = 0.001 * static_cast<double>(dice.between(1, 100));
  if (dice.happens(0.5)) weather.duplicates = 0.1;
  weather.reorders = dice.happens(0.3);
  weather.cuts = dice.happens(0.6);
  weather.restarts = dice.happens(0.7);
  return weather;
}

std::size_t draw_hosts(std::uint64_t seed) { return 3 + seed % 4; }

}  // namespace

FleetScenario::FleetScenario(std::uint64_t seed, bool is_traced)
    : dice_(seed * 131 + 17), cloud_(seed, draw_weather(seed), draw_hosts(seed)) {
  cloud_.world().is_traced = is_traced;
}

std::string FleetScenario::some_host() {
  const auto& names = cloud_.world().names();
  return names[dice_.between(0, names.size() - 1)];
}

std::string FleetScenario::some_guest() {
  return fmt::format("g{}", dice_.between(0, cloud_.guests().size() - 1));
}

void FleetScenario::add_guests() {
  const std::uint64_t pairs = dice_.between(1, 2);
  for (std::uint64_t i = 0; i < 2 * pairs; ++i) {
    cloud_.add_guest(fmt::format("g{}", i), some_host(), fmt::format("g{}", i ^ 1));
  }
}

void FleetScenario::ask_for_moves() {
  if (!storm_) return;
  const std::string name = some_guest();
  for (const std::string& host : cloud_.world().names()) {
    Agent* agent = cloud_.agent(host);
    if (!agent) continue;
    if (dice_.happens(0.1)) agent->cutover(name);
    if (agent->is_moving(name)) {
      if (dice_.happens(0.1)) agent->abort(name);
    } else {
      agent->migrate(name, some_host(), {.hold = dice_.happens(0.1)});
    }
  }
  cloud_.world().after(dice_.between(milliseconds(20), milliseconds(1200)),
                       [this] { ask_for_moves(); });
}

void FleetScenario::traffic(const std::string& guest) {
  if (!storm_) return;
  cloud_.send_frame(guest);
  cloud_.world().after(dice_.between(milliseconds(5), milliseconds(60)),
                       [this, guest] { traffic(guest); });
}

// ---- trouble ----

void FleetScenario::trouble() {
  if (!storm_) return;
  const Weather& weather = cloud_.world().weather();
  const std::string host = some_host(), other = some_host();
  switch (dice_.between(0, 9)) {
    case 0:
    case 1:
    case 2:
      if (weather.restarts) kill_agent(host);
      break;
    case 3:
      if (weather.restarts && dice_.happens(0.3)) lose_power(host);
      break;
    case 4:
    case 5:
      if (weather.cuts && host != other) cut(host, other);
      break;
    case 6:
      if (weather.restarts) fill_disk(host);
      break;
    case 7:
      cloud_.world().host(host).step_clock(dice_.between(milliseconds(1), seconds(3)));
      break;
    case 8:
      if (weather.restarts && dice_.happens(0.2)) cloud_.kill_qemu(host, some_guest());
      break;
    default:
      break;
  }
  cloud_.world().after(dice_.between(milliseconds(20), milliseconds(1000)), [this] { trouble(); });
}

void FleetScenario::kill_agent(const std::string& host) {
  if (!cloud_.agent(host)) return;
  ++outcome_.deaths;
  cloud_.kill_agent(host);
  cloud_.world().after(dice_.between(milliseconds(50), seconds(2)),
                       [this, host] { cloud_.start_agent(host); });
}

void FleetScenario::lose_power(const std::string& host) {
  ++outcome_.deaths;
  cloud_.power_off(host);
  cloud_.world().after(dice_.between(seconds(1), seconds(5)),
                       [this, host] { cloud_.start_agent(host); });
}

void FleetScenario::cut(const std::string& a, const std::string& b) {
  ++outcome_.cuts;
  cloud_.world().cut_link(a, b);
  const Nanoseconds length = dice_.happens(0.2) ? dice_.between(seconds(15), seconds(25))
                                                : dice_.between(milliseconds(10), seconds(5));
  cloud_.world().after(length, [this, a, b] { cloud_.world().heal_link(a, b); });
}

void FleetScenario::fill_disk(const std::string& host) {
  cloud_.disk(host).is_full = true;
  cloud_.world().after(dice_.between(milliseconds(100), seconds(5)), [this, host] {
    cloud_.disk(host).is_full = false;
    if (Agent* agent = cloud_.agent(host)) (void)agent->store().catch_up();
  });
}

// ---- calm ----

void FleetScenario::calm() {
  storm_ = false;
  World& world = cloud_.world();
  world.calm();
  cloud_.run_for(seconds(26));  // whatever is to come back comes back
  for (const std::string& host : world.names()) {
    cloud_.disk(host).is_full = false;
    if (Agent* agent = cloud_.agent(host)) (void)agent->store().catch_up();
    if (Agent* agent = cloud_.agent(host)) {
      for (const auto& [name, guest] : cloud_.guests()) agent->cutover(name);
    }
  }
  cloud_.run_for(kCalm);
}

void FleetScenario::expect_order() {
  for (const std::string& host : cloud_.world().names()) {
    Agent* agent = cloud_.agent(host);
    if (!agent) return cloud_.fail(host + " is down");
    if (!agent->is_idle()) cloud_.fail(fmt::format("{} is not done:{}", host, agent->describe()));
  }
  for (const auto& [name, guest] : cloud_.guests()) expect_guest(guest);
  for (std::size_t i = 0; i < cloud_.guests().size(); i += 2) {
    expect_wire(fmt::format("g{}", i), fmt::format("g{}", i + 1));
  }
}

void FleetScenario::expect_guest(const Guest& guest) {
  if (cloud_.is_lost(guest.name)) {
    ++outcome_.lost;
    if (!guest.was_killed) cloud_.fail(guest.name + " is lost");
    return;
  }
  if (!guest.runs_at) return cloud_.fail(guest.name + " stands");
  if (cloud_.processes_of(guest.name) != 1) cloud_.fail("a QEMU of " + guest.name + " is left");
  for (const std::string& host : cloud_.world().names()) {
    Agent& agent = *cloud_.agent(host);
    const bool here = host == *guest.runs_at;
    const bool has_port = agent.store().find("port", guest.port.text()).has_value();
    if (agent.has_vm(guest.name) != here) {
      cloud_.fail(fmt::format("{}'s word of {} is wrong", host, guest.name));
    }
    const auto live = cloud_.world().host(host).engine()->live_epoch(guest.port);
    if (live.has_value() != here) cloud_.fail(fmt::format("{} of {} is live", guest.name, host));
    if (has_port != here) cloud_.fail(fmt::format("{}'s port of {} is wrong", host, guest.name));
  }
}

void FleetScenario::expect_wire(const std::string& a, const std::string& b) {
  if (!cloud_.guest(a).runs_at || !cloud_.guest(b).runs_at) return;
  // What a restarted agent would begin with.
  for (const auto& [name, other] : {std::pair{a, b}, std::pair{b, a}}) {
    const Guest& guest = cloud_.guest(name);
    const auto wire = cloud_.agent(*guest.runs_at)->store().find("wire", guest.port.text());
    const std::string& peer = *cloud_.guest(other).runs_at;
    if (!wire || (*wire)["remote_host"] != peer) {
      cloud_.fail(fmt::format("the record of {}'s wire does not lead to {}", name, peer));
    }
  }
  std::map<std::string, std::size_t> before;
  for (const std::string& name : {a, b}) before[name] = cloud_.guest(name).received.size();
  for (int i = 0; i < kFrames; ++i) {
    for (const std::string& name : {a, b}) cloud_.send_frame(name);
    cloud_.run_for(milliseconds(10));
  }
  cloud_.run_for(seconds(1));
  for (const std::string& name : {a, b}) {
    if (cloud_.guest(name).received.size() != before[name] + kFrames) {
      cloud_.fail(fmt::format("{} hears {} of {} frames", name,
                              cloud_.guest(name).received.size() - before[name], kFrames));
    }
  }
}

FleetOutcome FleetScenario::run() {
  add_guests();
  cloud_.boot();
  for (const auto& [name, guest] : cloud_.guests()) traffic(name);
  ask_for_moves();
  trouble();
  cloud_.run_for(kStorm);
  calm();
  if (cloud_.failure().empty()) expect_order();
  outcome_.moves = cloud_.moves;
  outcome_.aborts = cloud_.aborts;
  outcome_.failure = cloud_.failure();
  return outcome_;
}

}  // namespace godwit::sim

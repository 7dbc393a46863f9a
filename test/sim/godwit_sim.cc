// godwit_sim: the simulations of moving wires (--wires), of hand-overs that are interrupted at
// every point (--crash), and of fleets (--fleet); without one of these, all of them. Prints what
// failed with the options that show it alone, and exits 1.
#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "crash_matrix.hh"
#include "crash_table.hh"
#include "fleet_scenario.hh"
#include "move_scenario.hh"

namespace {

using namespace godwit;  // NOLINT: a main of its own

constexpr const char* kUsage =
    "usage: godwit_sim [--wires] [--crash] [--fleet] [--seeds N] [--seed S] [--keep-going] "
    "[--trace]\n"
    "       godwit_sim --crash [--point POINT] [--fault FAULT] [--trace]\n"
    "       godwit_sim --points  the points of a hand-over, as GODWIT_FAULT takes them\n"
    "       godwit_sim --stories how moves come to them: POINT KIND POINT-OF-A-DEATH-BEFORE\n"
    "       godwit_sim --table   what may become of a guest: JOURNAL JOURNAL FAULT OUTCOME...\n";

struct Options {
  bool wires = false, crash = false, fleet = false;
  std::uint64_t seeds = 1000, first = 1;
  bool keep_going = false, trace = false;
  std::string point, fault;
};

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    fmt::print(stderr, "not a number: {}\n", text);
    std::exit(2);
  }
  return value;
}

int print_points() {
  for (const migrate::Point& point : migrate::handover_points()) {
    fmt::print("{}\n", to_text(point));
  }
  return 0;
}

int print_stories() {
  for (const auto& [point, story] : sim::stories()) {
    fmt::print("{} {} {}\n", to_text(point), to_text(story.kind),
               story.killed_at ? to_text(*story.killed_at) : "-");
  }
  return 0;
}

// All states that have a name.
template <class State>
std::vector<State> all_states() {
  std::vector<State> states;
  for (std::uint8_t i = 0; to_text(static_cast<State>(i)) != "?"; ++i) {
    states.push_back(static_cast<State>(i));
  }
  return states;
}

int print_table() {
  for (const auto source : all_states<migrate::SourceState>()) {
    for (const auto target : all_states<migrate::TargetState>()) {
      for (const sim::Fault fault : sim::all_faults()) {
        fmt::print("{} {} {}", to_text(source), to_text(target), to_text(fault));
        for (const sim::Outcome outcome : sim::allowed(source, target, fault)) {
          fmt::print(" {}", to_text(outcome));
        }
        fmt::print("\n");
      }
    }
  }
  return 0;
}

bool run_wires(const Options& options) {
  sim::Outcomes total;
  std::uint64_t failed = 0;
  for (std::uint64_t seed = options.first; seed < options.first + options.seeds; ++seed) {
    const sim::Outcomes outcome = sim::MoveScenario(seed, options.trace).run();
    total.sent += outcome.sent;
    total.received += outcome.received;
    total.moves += outcome.moves;
    total.aborts += outcome.aborts;
    total.restarts += outcome.restarts;
    if (outcome.failure.empty()) continue;
    ++failed;
    fmt::print("--wires --seed {} --seeds 1: {}\n", seed, outcome.failure);
    if (!options.keep_going) return false;
  }
  fmt::print(
      "wires: {} seeds, {} failed: {} frames sent, {} received, {} moves, {} aborted, {} "
      "restarts\n",
      options.seeds, failed, total.sent, total.received, total.moves, total.aborts, total.restarts);
  return failed == 0;
}

bool run_crash(const Options& options) {
  const auto result =
      sim::run_crash_matrix({.seeds = std::clamp<std::uint64_t>(options.seeds / 2500, 1, 100),
                             .point = options.point,
                             .fault = options.fault,
                             .is_traced = options.trace});
  std::uint64_t shown = 0;
  for (const std::string& failure : result.failures) {
    fmt::print("{}\n", failure);
    if (++shown == 20 && !options.keep_going) break;
  }
  fmt::print(
      "crash: {} points, {} runs, {} failed; the guest stood at most {:.0f} ms after an "
      "agent was killed\n",
      result.points, result.runs, result.failures.size(), to_ms(result.longest_stand));
  return result.failures.empty();
}

bool run_fleet(const Options& options) {
  sim::FleetOutcome total;
  std::uint64_t failed = 0;
  for (std::uint64_t seed = options.first; seed < options.first + options.seeds; ++seed) {
    const sim::FleetOutcome outcome = sim::FleetScenario(seed, options.trace).run();
    total.moves += outcome.moves;
    total.aborts += outcome.aborts;
    total.deaths += outcome.deaths;
    total.cuts += outcome.cuts;
    total.lost += outcome.lost;
    if (outcome.failure.empty()) continue;
    ++failed;
    fmt::print("--fleet --seed {} --seeds 1: {}\n", seed, outcome.failure);
    if (!options.keep_going) return false;
  }
  fmt::print(
      "fleet: {} seeds, {} failed: {} moves, {} aborted, {} agents or hosts died, {} cuts, {} "
      "guests lost with their QEMUs\n",
      options.seeds, failed, total.moves, total.aborts, total.deaths, total.cuts, total.lost);
  return failed == 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    const bool has_value = i + 1 < argc;
    if (option == "--points") return print_points();
    if (option == "--stories") return print_stories();
    if (option == "--table") return print_table();
    if (option == "--wires") {
      options.wires = true;
    } else if (option == "--crash") {
      options.crash = true;
    } else if (option == "--fleet") {
      options.fleet = true;
    } else if (option == "--seeds" && has_value) {
      options.seeds = number(argv[++i]);
    } else if (option == "--seed" && has_value) {
      options.first = number(argv[++i]);
    } else if (option == "--point" && has_value) {
      options.point = argv[++i];
    } else if (option == "--fault" && has_value) {
      options.fault = argv[++i];
    } else if (option == "--keep-going") {
      options.keep_going = true;
    } else if (option == "--trace") {
      options.trace = true;
    } else {
      fmt::print(stderr, "{}", kUsage);
      return 2;
    }
  }
  const bool all = !options.wires && !options.crash && !options.fleet;
  bool good = true;
  if (all || options.wires) good &= run_wires(options);
  if (all || options.crash) good &= run_crash(options);
  if (all || options.fleet) good &= run_fleet(options);
  return good ? 0 : 1;
}

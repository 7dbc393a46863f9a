// godwit_sim: the simulations of moving wires (--wires), of hand-overs that are interrupted at
// every point (--crash), of fleets (--fleet), and of networks whose components move (--fabric);
// without one of these, all of them. Prints what failed with the options that show it alone, and
// exits 1. --stop-policies compares instead.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "crash_matrix.hh"
#include "crash_table.hh"
#include "fabric_scenario.hh"
#include "fleet_scenario.hh"
#include "move_scenario.hh"
#include "precopy.hh"
#include "scale.hh"

namespace godwit::sim {
namespace {

struct Options {
  bool wires = false, crash = false, fleet = false, fabric = false;
  std::uint64_t seeds = 1000, first = 1;
  bool keep_going = false, trace = false;
  std::string point, fault;
};

void print_points() {
  for (const migrate::Point& point : migrate::handover_points()) {
    fmt::print("{}\n", to_text(point));
  }
}

void print_stories() {
  for (const auto& [point, story] : stories()) {
    fmt::print("{} {} {}\n", to_text(point), to_text(story.kind),
               story.killed_at ? to_text(*story.killed_at) : "-");
  }
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

void print_table() {
  for (const auto source : all_states<migrate::SourceState>()) {
    for (const auto target : all_states<migrate::TargetState>()) {
      for (const Fault fault : all_faults()) {
        fmt::print("{} {} {}", to_text(source), to_text(target), to_text(fault));
        for (const Outcome outcome : allowed(source, target, fault)) {
          fmt::print(" {}", to_text(outcome));
        }
        fmt::print("\n");
      }
    }
  }
}

// Runs the scenario of each seed into `total`, and returns how many failed.
template <class Scenario, class Total>
std::uint64_t run_seeds(const Options& options, std::string_view flag, Total& total) {
  std::uint64_t failed = 0;
  for (std::uint64_t seed = options.first; seed < options.first + options.seeds; ++seed) {
    const Total outcome = Scenario(seed, options.trace).run();
    total += outcome;
    if (outcome.failure.empty()) continue;
    ++failed;
    fmt::print("{} --seed {} --seeds 1: {}\n", flag, seed, outcome.failure);
    if (!options.keep_going) break;
  }
  return failed;
}

bool run_wires(const Options& options) {
  MoveOutcome total;
  const auto failed = run_seeds<MoveScenario>(options, "--wires", total);
  fmt::print(
      "wires: {} seeds, {} failed: {} frames sent, {} received, {} moves, {} aborted, {} "
      "restarts\n",
      options.seeds, failed, total.sent, total.received, total.moves, total.aborts, total.restarts);
  return failed == 0;
}

bool run_crash(const Options& options) {
  const auto result =
      run_crash_matrix({.seeds = std::clamp<std::uint64_t>(options.seeds / 2500, 1, 100),
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
  FleetOutcome total;
  const auto failed = run_seeds<FleetScenario>(options, "--fleet", total);
  fmt::print(
      "fleet: {} seeds, {} failed: {} moves, {} aborted, {} agents or hosts died, {} cuts, {} "
      "guests lost with their QEMUs\n",
      options.seeds, failed, total.moves, total.aborts, total.deaths, total.cuts, total.lost);
  return failed == 0;
}

bool run_fabric(const Options& options) {
  FabricOutcome total;
  const auto failed = run_seeds<FabricScenario>(options, "--fabric", total);
  fmt::print(
      "fabric: {} seeds, {} of all 50 hosts, {} failed: {} ports, {} moves, {} aborted, {} "
      "restarts, {} cuts, {} messages heard\n",
      options.seeds, total.full, failed, total.ports, total.moves, total.aborts, total.restarts,
      total.cuts, total.heard);
  return failed == 0;
}

struct Comparison {
  std::vector<std::string> traces;
  std::string rate = "100mbit", rtt = "40ms", max_downtime = "300ms";
};

std::vector<std::string> all_traces() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(GODWIT_TRACES)) {
    if (entry.path().extension() == ".dirty") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

int compare_stop_policies(const Comparison& comparison) {
  const auto rate = parse_bit_rate(comparison.rate);
  const auto rtt = parse_duration(comparison.rtt);
  const auto max_downtime = parse_duration(comparison.max_downtime);
  for (const auto& error : {rate ? "" : rate.error().text, rtt ? "" : rtt.error().text,
                            max_downtime ? "" : max_downtime.error().text}) {
    if (!error.empty()) return fmt::print("{}\n", error), 2;
  }
  std::vector<DirtyTrace> traces;
  for (const auto& path : comparison.traces.empty() ? all_traces() : comparison.traces) {
    auto trace = read_dirty_trace(path);
    if (!trace) return fmt::print("{}\n", trace.error().text), 2;
    traces.push_back(*std::move(trace));
  }
  fmt::print("{}", stop_policy_table(traces, {.rate = *rate, .rtt = *rtt}, *max_downtime));
  return 0;
}

// As the benches write them (bench/*.py), with what a port costs of many for that of few.
int print_scale(std::size_t few, std::size_t many, const std::string& path) {
  nlohmann::json rows = nlohmann::json::array();
  for (const auto measure : {scale_of_planning, scale_of_engine}) {
    const auto of_few = measure(few), of_many = measure(many);
    for (std::size_t i = 0; i < of_few.size(); ++i) {
      const double before = of_few[i].us_per_port, after = of_many[i].us_per_port;
      fmt::print("{:8} {:18} {:9.2f} us per port of {}, {:9.2f} of {}: {:6.2f}-fold\n",
                 of_few[i].of, of_few[i].metric, before, few, after, many, after / before);
      for (const auto& [ports, value] : {std::pair{few, before}, std::pair{many, after}}) {
        rows.push_back({{"bench", "scale"},
                        {"case", fmt::format("{} ports", ports)},
                        {"system", of_few[i].of},
                        {"metric", of_few[i].metric},
                        {"value", value},
                        {"unit", "us/port"}});
      }
    }
  }
  if (!path.empty()) std::ofstream(path) << rows.dump(1) << "\n";
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  Comparison comparison;
  bool compares = false, scales = false, points = false, stories = false, table = false;
  std::size_t few = 1000, many = 10000;
  std::string json;
  CLI::App app(
      "Simulations: wires that move, hand-overs interrupted at every point, fleets in a storm, "
      "networks whose components move. Without one of the four, all of them.");
  app.add_flag("--wires", options.wires);
  app.add_flag("--crash", options.crash);
  app.add_flag("--fleet", options.fleet);
  app.add_flag("--fabric", options.fabric);
  app.add_option("--seed", options.first, "The first")->capture_default_str();
  app.add_option("--seeds", options.seeds, "How many")->capture_default_str();
  app.add_option("--point", options.point, "Only this one (--crash)");
  app.add_option("--fault", options.fault, "Only this one (--crash)");
  app.add_flag("--keep-going", options.keep_going, "After a failure");
  app.add_flag("--trace", options.trace, "Tell all that happens");
  app.add_flag("--points", points, "Print the points of a hand-over, as GODWIT_FAULT takes them");
  app.add_flag("--stories", stories,
               "Print how moves come to them: POINT KIND POINT-OF-A-DEATH-BEFORE");
  app.add_flag("--table", table,
               "Print what may become of a guest: JOURNAL JOURNAL FAULT OUTCOME...");
  auto* stop_policies = app.add_flag("--stop-policies", compares,
                                     "Play pre-copy of recorded guests with each stop policy");
  app.add_option("TRACE", comparison.traces, "Recorded guests (default: those in test/sim/traces)")
      ->needs(stop_policies);
  app.add_option("--rate", comparison.rate, "Of the link (--stop-policies)")->capture_default_str();
  app.add_option("--rtt", comparison.rtt, "Of the link (--stop-policies)")->capture_default_str();
  app.add_option("--max-downtime", comparison.max_downtime, "As of a move (--stop-policies)")
      ->capture_default_str();
  auto* scale = app.add_flag("--scale", scales, "Measure what a port costs where there are many");
  app.add_option("--few", few, "Ports (--scale)")->capture_default_str();
  app.add_option("--many", many, "Ports (--scale)")->capture_default_str();
  app.add_option("--json", json, "Write the figures into this file (--scale)")->needs(scale);
  CLI11_PARSE(app, argc, argv);
  if (points) print_points();
  if (stories) print_stories();
  if (table) print_table();
  if (compares) return compare_stop_policies(comparison);
  if (scales) return print_scale(few, many, json);
  if (points || stories || table) return 0;
  const bool all = !options.wires && !options.crash && !options.fleet && !options.fabric;
  bool good = true;
  if (all || options.wires) good &= run_wires(options);
  if (all || options.crash) good &= run_crash(options);
  if (all || options.fleet) good &= run_fleet(options);
  if (all) options.seeds = std::max<std::uint64_t>(options.seeds / 100, 1);  // they take as long
  if (all || options.fabric) good &= run_fabric(options);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace godwit::sim

int main(int argc, char** argv) { return godwit::sim::run(argc, argv); }

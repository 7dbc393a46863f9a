// godwit_sim --seeds N --seed S: runs the simulation of moving wires with seeds S, S+1, ...; prints
// the first that fails and exits 1.
#include <fmt/format.h>

#include <charconv>
#include <string_view>

#include "move_scenario.hh"

namespace {

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) {
    fmt::print(stderr, "not a number: {}\n", text);
    std::exit(2);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t seeds = 1000, first = 1;
  bool keep_going = false, trace = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--seeds" && i + 1 < argc) {
      seeds = number(argv[++i]);
    } else if (option == "--seed" && i + 1 < argc) {
      first = number(argv[++i]);
    } else if (option == "--keep-going") {
      keep_going = true;
    } else if (option == "--trace") {
      trace = true;
    } else {
      fmt::print(stderr, "usage: godwit_sim [--seeds N] [--seed S] [--keep-going] [--trace]\n");
      return 2;
    }
  }
  godwit::sim::Outcome total;
  std::uint64_t failed = 0;
  for (std::uint64_t seed = first; seed < first + seeds; ++seed) {
    const godwit::sim::Outcome outcome = godwit::sim::MoveScenario(seed, trace).run();
    total.sent += outcome.sent;
    total.received += outcome.received;
    total.moves += outcome.moves;
    total.aborts += outcome.aborts;
    total.restarts += outcome.restarts;
    if (outcome.failure.empty()) continue;
    ++failed;
    fmt::print("seed {}: {}\n", seed, outcome.failure);
    if (!keep_going) return 1;
  }
  fmt::print(
      "{} seeds, {} failed: {} frames sent, {} received, {} moves, {} aborted, {} restarts\n",
      seeds, failed, total.sent, total.received, total.moves, total.aborts, total.restarts);
  return failed == 0 ? 0 : 1;
}

#include "lab/show.hh"

#include <nlohmann/json.hpp>

#include "base/units.hh"
#include "lab/control.hh"
#include "lab/state.hh"

namespace godwit::lab {
namespace {

// Design: a measurement made while frames leave later than this is not to be believed.
constexpr double kGoodDelayErrorUs = 1000;

bool runs(const os::ProcessIdentity& process) {
  return process.pid > 0 && os::Child::adopt(process).has_value();
}

std::string drops_text(const nlohmann::json& drops) {
  std::string text;
  for (const auto& [cause, by_transport] : drops.items()) {
    std::uint64_t sum = 0;
    std::string parts;
    for (const auto& [transport, count] : by_transport.items()) {
      const auto number = count.get<std::uint64_t>();
      sum += number;
      if (number > 0) parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", number, transport);
    }
    if (sum > 0)
      text += fmt::format("{}{} by {} ({})", text.empty() ? "" : "; ", sum, cause, parts);
  }
  return text.empty() ? "none" : text;
}

std::string direction_text(const nlohmann::json& direction) {
  std::string text = fmt::format("  {} -> {}: ", direction["from"].get<std::string>(),
                                 direction["to"].get<std::string>());
  if (direction.contains("rate_bps")) {
    text += fmt::format("{}, queue {}, ", to_text(BitRate{direction["rate_bps"]}),
                        to_text(ByteCount{direction["queue_limit_bytes"]}));
  } else {
    text += "no rate limit, ";
  }
  text += fmt::format("delay {} ms", direction["delay_ms"].get<double>());
  if (direction["jitter_ms"] > 0)
    text += fmt::format(" +- {} ms", direction["jitter_ms"].get<double>());
  if (direction["loss"] > 0)
    text += fmt::format(", loss {:.3g}%", direction["loss"].get<double>() * 100);
  text += fmt::format(", mtu {}\n    {} frames, {}; dropped: {}\n", direction["mtu"].get<int>(),
                      direction["frames"].get<std::uint64_t>(),
                      to_text(ByteCount{direction["bytes"]}), drops_text(direction["drops"]));
  return text;
}

std::string delay_text(const nlohmann::json& error) {
  if (error["frames"] == 0) return "delay error: nothing has crossed yet\n";
  const double p99 = error["p99"];
  return fmt::format(
      "delay error: p50 {:.0f} us, p99 {:.0f} us, max {:.0f} us over {} frames{}\n",
      error["p50"].get<double>(), p99, error["max"].get<double>(),
      error["frames"].get<std::uint64_t>(),
      p99 < kGoodDelayErrorUs ? "" : "  (too late to trust: this machine is overloaded)");
}

}  // namespace

nlohmann::json describe(const std::string& name) {
  const StateDirectory directory(name);
  nlohmann::json lab = {{"name", name}, {"up", false}, {"nodes", nlohmann::json::array()}};
  const auto state = directory.load();
  if (!state) return lab;
  lab["up"] = runs(state->holder);
  lab["agents"] = state->agents;
  lab["holder_pid"] = state->holder.pid;
  lab["emulator_pid"] = state->emulator.pid;
  for (const auto& node : state->nodes) {
    lab["nodes"].push_back({{"name", node.name},
                            {"site", node.site},
                            {"router", node.is_router},
                            {"agent", state->agents && node.has_agent},
                            {"ipv4", node.ipv4},
                            {"ipv6", node.ipv6},
                            {"announced", node.announced},
                            {"state", runs(node.init) ? "up" : "off"},
                            {"pid", node.init.pid}});
  }
  if (auto stats = ask(directory.file("wan.sock"), {{"do", "stats"}})) lab.update(*stats);
  return lab;
}

std::string table_of(const nlohmann::json& lab) {
  const std::string name = lab["name"];
  if (lab["nodes"].empty())
    return fmt::format("lab {}: not there; `godwit lab up` makes it\n", name);
  if (lab["up"] == false)
    return fmt::format("lab {}: crashed; `godwit lab up` or `down` clears it\n", name);
  std::string text = fmt::format("lab {}\n{:<16} {:<12} {:<14} {:<26} {}\n", name, "HOST", "SITE",
                                 "IPV4", "IPV6", "POWER");
  for (const auto& node : lab["nodes"]) {
    const bool tells = node["router"] && node["agent"];  // of a host nobody expects less
    text += fmt::format("{:<16} {:<12} {:<14} {:<26} {}{}\n", node["name"].get<std::string>(),
                        node["site"].get<std::string>(), node["ipv4"].get<std::string>(),
                        node["ipv6"].get<std::string>(), node["state"].get<std::string>(),
                        tells ? ", with an agent" : "");
  }
  if (!lab.contains("links")) return text + "the emulator does not answer\n";
  for (const auto& link : lab["links"]) {
    text += fmt::format("link {}: {}", link["name"].get<std::string>(),
                        link["state"].get<std::string>());
    if (link.contains("heals_in_ms"))
      text += fmt::format(", heals in {:.1f} s", link["heals_in_ms"].get<double>() / 1000);
    text += "\n";
    for (const auto& direction : link["directions"]) text += direction_text(direction);
  }
  return text + delay_text(lab["delay_error_us"]);
}

}  // namespace godwit::lab

#include "cli/rule_text.hh"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/units.hh"
#include "cli/table.hh"

namespace godwit::cli {

using json = nlohmann::json;

namespace {

std::string when(const std::string& phase) {
  if (phase == "staged") return "before the guest stands; refused by one, undone at all";
  if (phase == "forwarded") return "when it runs there, at the source's host first";
  if (phase == "flipped") return "then, in any order";
  if (phase == "drained") return "when nothing comes to the old place any more";
  return "after that";
}

std::size_t widest_name(const json& plan) {
  std::size_t widest = 0;
  for (const json& phase : plan.at("phases")) {
    for (const json& device : phase.at("devices")) {
      widest = std::max(widest, text_of(device, "device").size());
    }
  }
  return widest;
}

double ms_at(const json& steps, const char* key) { return steps.value(key, 0.0); }

}  // namespace

std::string rule_text(const json& rule) {
  const std::string becomes = rule.value("becomes", "");
  return fmt::format("{} {}{}{}", text_of(rule, "kind"), text_of(rule, "match"),
                     becomes.empty() ? "" : " -> " + becomes,
                     rule.value("staged", false) ? " (staged)" : "");
}

std::string plan_text(const json& plan) {
  const std::size_t widest = widest_name(plan);
  std::string text;
  for (const json& phase : plan.at("phases")) {
    if (phase.at("devices").empty()) continue;
    const std::string name = text_of(phase, "phase");
    text += fmt::format("{}: {}\n", name, when(name));
    for (const json& device : phase.at("devices")) {
      std::string shown = text_of(device, "device");
      const auto line = [&](char sign, const json& rule) {
        text += fmt::format("  {:<{}}  {} {}\n", shown, widest, sign, rule_text(rule));
        shown.clear();
      };
      for (const json& rule : device.at("remove")) line('-', rule);
      for (const json& rule : device.at("add")) line('+', rule);
    }
  }
  const auto rules = plan.value("rules", 0U);
  if (rules == 0) return text + "it is at home there: no rule is left\n";
  return text + fmt::format("{} rules at {} of {} devices are left\n", rules,
                            plan.value("devices", 0U), plan.value("of_devices", 0U));
}

namespace {

std::string endpoint_part(const json& each) {
  std::string addresses;
  for (const json& one : each.value("addresses", json::array())) {
    const bool is_home = !one.contains("new_address");
    addresses += fmt::format("{}{} is {}", addresses.empty() ? "" : ", ", text_of(one, "address"),
                             is_home ? "at home" : text_of(one, "new_address") + " to others now");
  }
  const json alive = each.value("alive", json::object());
  return fmt::format(
      "  network   {} ({}); of its {} connections {} are direct, {} relayed\n"
      "            staged in {:.1f} ms before the pause; after it the relay forwarded from {:.1f} "
      "ms, the uplink here at {:.1f} ms, all correspondents' hosts told at {:.1f} ms\n",
      addresses, text_of(each, "port"), each.value("connections", 0U), alive.value("direct", 0U),
      alive.value("relayed", 0U), ms_at(each, "staged_ms"), ms_at(each, "forwarded_ms"),
      ms_at(each, "uplink_ms"), ms_at(each, "flipped_ms"));
}

}  // namespace

std::string endpoint_plan_text(const json& plan) {
  std::string text;
  for (const json& each : plan.value("addresses", json::array())) {
    if (!each.contains("new_address")) {
      text += fmt::format(
          "{} is at home there: connections with that address need no other, {} "
          "of those that it has\n",
          text_of(each, "address"), plan.value("at_home", 0U));
      continue;
    }
    text += fmt::format("new connections of {} have {}, those that it has {} on their way\n",
                        text_of(each, "address"), text_of(each, "new_address"),
                        text_of(each, "on_the_way"));
  }
  for (const json& each : plan.value("direct", json::array())) {
    text += fmt::format("{} connections with host {} go there directly: its agent is told\n",
                        each.value("connections", 0U), text_of(each, "host"));
  }
  return text + fmt::format(
                    "{} connections with others are relayed by the host where it was, for "
                    "at most {}\n",
                    plan.value("relayed", 0U),
                    to_text(seconds(plan.value("relay_s", std::int64_t{0}))));
}

std::string network_part(const json& migration) {
  const auto network = migration.find("network");
  if (network == migration.end() || !network->is_array()) return {};
  std::string text;
  for (const json& each : *network) {
    if (each.value("strategy", "") == "endpoint") {
      text += endpoint_part(each);
      continue;
    }
    std::string addresses;
    for (const json& one : each.value("addresses", json::array())) {
      const std::string locator = one.value("locator", "");
      addresses += fmt::format("{}{}{}", addresses.empty() ? "" : ", ", text_of(one, "address"),
                               locator.empty() ? " at home" : " by " + locator);
    }
    text += fmt::format(
        "  network   {} ({}): {} rules at {} devices\n"
        "            staged in {:.1f} ms before the pause; after it sent on from {:.1f} ms, the "
        "uplink here at {:.1f} ms, all devices at {:.1f} ms\n",
        addresses, text_of(each, "port"), each.value("rules", 0U), each.value("devices", 0U),
        ms_at(each, "staged_ms"), ms_at(each, "forwarded_ms"), ms_at(each, "uplink_ms"),
        ms_at(each, "flipped_ms"));
  }
  return text;
}

}  // namespace godwit::cli

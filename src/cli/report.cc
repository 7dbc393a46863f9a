#include "cli/report.hh"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/units.hh"
#include "cli/rule_text.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;

// Times are added in tenths of a millisecond, as they are printed: rounding cannot hide a gap.
using Tenths = long long;
Tenths tenths(double ms) { return std::llround(ms * 10.0); }

constexpr std::string_view kLine = "  {:<22}{:>12}{}\n";

std::string time_line(std::string_view name, Tenths time, std::string_view remark = {}) {
  return fmt::format(fmt::runtime(kLine), name,
                     fmt::format("{:.1f} ms", static_cast<double>(time) / 10.0), remark);
}

std::string rule() { return fmt::format("  {:-<34}\n", ""); }

// Lines that are added up against a total; the difference gets its own line.
class Sum final {
 public:
  void add(std::string_view name, double ms, std::string_view remark = {}) {
    sum_ += tenths(ms);
    text_ += time_line(name, tenths(ms), remark);
  }
  std::string close(std::string_view rest_name, std::string_view total_name, double total_ms) {
    const Tenths rest = tenths(total_ms) - sum_;
    if (rest != 0) text_ += time_line(rest_name, rest);
    return text_ + rule() + time_line(total_name, tenths(total_ms));
  }

 private:
  Tenths sum_ = 0;
  std::string text_;
};

// What the guest had to wait for the target.
std::string writes_of(const json& disks) {
  const double slowest = number_of(disks, "slowest_write_ms");
  if (slowest == 0) return {};
  const std::string text = fmt::format("; writes in step {:.0f} ms, at most {:.0f}",
                                       number_of(disks, "mean_write_ms"), slowest);
  const double usual = number_of(disks, "usual_write_ms");
  return usual == 0 ? text : text + fmt::format(", before {:.1f}", usual);
}

// What the target had, but not on these disks.
std::string elsewhere_of(const json& disks) {
  if (number_of(disks, "elsewhere_bytes") == 0) return {};
  return fmt::format(", {} elsewhere there", bytes_of(disks, "elsewhere_bytes"));
}

std::string total_part(const json& report) {
  Sum total;
  total.add("preparation", number_of(report, "preparation_ms"));
  if (const auto disks = report.find("disks"); disks != report.end()) {
    total.add("disks", number_of(*disks, "copy_s") * 1e3,
              fmt::format("  {:>9}, {} there already{}, {} sent{}", bytes_of(*disks, "total_bytes"),
                          bytes_of(*disks, "same_bytes"), elsewhere_of(*disks),
                          bytes_of(*disks, "sent_bytes"), writes_of(*disks)));
  }
  for (const json& round : report.value("rounds", json::array())) {
    total.add("round " + text_of(round, "round"), number_of(round, "ms"),
              fmt::format("  {:>9}", bytes_of(round, "bytes")));
  }
  total.add("pause", number_of(report, "pause_ms"), "  (below)");
  return total.close("between these", "total", number_of(report, "total_ms"));
}

std::string pause_part(const json& report) {
  const json parts = report.value("pause", json::object());
  Sum pause;
  pause.add("final memory", number_of(parts, "final_memory_ms"));
  pause.add("device state", number_of(parts, "device_state_ms"));
  pause.add("network", number_of(parts, "network_ms"));
  if (parts.contains("disks_ms")) pause.add("disks", number_of(parts, "disks_ms"));
  pause.add("commit", number_of(parts, "commit_ms"));
  pause.add("resume", number_of(parts, "resume_ms"));
  return pause.close("between these", "pause", number_of(report, "pause_ms"));
}

std::string prediction_line(const json& report) {
  const auto prediction = report.find("prediction");
  if (prediction == report.end() || !prediction->is_object()) return {};
  const double error = number_of(*prediction, "error_ms");
  return fmt::format("  predicted {:.1f} ms as the guest was stopped: it took {:.1f} ms {}\n",
                     number_of(*prediction, "pause_ms"), std::abs(error),
                     error < 0 ? "less" : "more");
}

// What each encoding left of what it was given.
std::string encodings_part(const json& report) {
  std::string text;
  for (const json& use : report.value("encodings", json::array())) {
    const double bytes = number_of(use, "bytes");
    if (bytes == 0) continue;
    text += fmt::format("{}{} {} -> {}", text.empty() ? "  encoded   " : ", ", text_of(use, "name"),
                        bytes_of(use, "bytes"), bytes_of(use, "encoded_bytes"));
  }
  return text.empty() ? text : text + "\n";
}

std::string counts_part(const json& report) {
  const json bytes = report.value("bytes", json::object());
  const json held = report.value("held", json::object());
  const json cpu = report.value("cpu_s", json::object());
  return fmt::format(
      "  sent      {} of memory stream, {} over the WAN\n"
      "{}"
      "  held      {} frames during the pause, {} dropped\n"
      "  CPU       {:.2f} s at the source, {:.2f} s at the target\n",
      bytes_of(bytes, "memory_stream"), bytes_of(bytes, "wan"), encodings_part(report),
      text_of(held, "frames"), text_of(held, "dropped"), number_of(cpu, "source"),
      number_of(cpu, "target"));
}

// In post-copy.
std::string followed_part(const json& report) {
  if (!report.contains("memory_followed_ms")) return {};
  return fmt::format("  followed  memory, for {:.1f} s after the pause\n",
                     number_of(report, "memory_followed_ms") / 1000);
}

// The operator's hooks: none runs within the pause, so they are no part of any sum.
std::string hooks_part(const json& migration) {
  const json hooks = migration.value("hooks", json::object());
  std::string text;
  for (const auto& [field, name] :
       {std::pair{"pre_pause", "pre-pause"}, std::pair{"post_resume", "post-resume"}}) {
    const json hook = hooks.value(field, json());
    if (!hook.is_object()) continue;
    text += fmt::format("  hooks     {} {:.1f} ms{}\n", name, number_of(hook, "ms"),
                        hook.contains("failure") ? ", failed: " + text_of(hook, "failure") : "");
  }
  return text;
}

// Strategy secondary-nic.
std::string flip_part(const json& migration) {
  const auto flip = migration.find("flip");
  if (flip == migration.end() || !flip->is_object()) return {};
  if (!flip->value("done", false)) {
    return fmt::format("  flip      NIC {} is not the guest's way out: {}\n",
                       text_of(*flip, "port"), text_of(*flip, "why"));
  }
  std::string text = fmt::format("  flip      to NIC {}, {:.1f} ms after the guest ran\n",
                                 text_of(*flip, "port"), number_of(*flip, "ms"));
  for (const json& note : flip->value("notes", json::array())) {
    text += fmt::format("            note: {}\n", note.get<std::string>());
  }
  return text;
}

// A guest's clock stands still in the pause.
std::string clock_part(const json& migration) {
  const auto clock = migration.find("clock");
  if (clock == migration.end() || !clock->is_object()) return {};
  const double behind = number_of(*clock, "behind_ms");
  if (clock->value("corrected", false)) {
    return fmt::format("  clock     was behind by {:.1f} ms, corrected: {:.1f} ms are left\n",
                       behind, number_of(*clock, "left_ms"));
  }
  return fmt::format("  clock     behind by {:.1f} ms: {}\n", behind, text_of(*clock, "why"));
}

// "vm web1", "component/sw1"
std::string spoken_name(const json& migration) {
  const std::string name = text_of(migration, "vm");
  return name.starts_with("component/") ? name : "vm " + name;
}

// A component's: it stands as long as its last state is on its way.
std::string component_part(const json& report) {
  const json held = report.value("held", json::object());
  return fmt::format(
      "  sent      {} of what it knows, in {}\n"
      "  pause     {:.1f} ms, of which {:.1f} ms at the two hosts\n"
      "  total     {:.1f} ms\n"
      "  held      {} frames during the pause, {} dropped\n",
      bytes_of(report, "state_bytes"), bytes_of(report, "sent_bytes"),
      number_of(report, "pause_ms"), number_of(report, "freeze_ms"), number_of(report, "total_ms"),
      text_of(held, "frames"), text_of(held, "dropped"));
}

std::string outcome(const json& migration) {
  const std::string state = text_of(migration, "state");
  const std::string name = spoken_name(migration);
  const std::string from = text_of(migration, "from");
  const std::string to = text_of(migration, "to");
  if (state == "done" || state == "draining" || state == "committed") {
    return fmt::format("{} moved from {} to {}", name, from, to);
  }
  if (state == "aborted") return fmt::format("move aborted: {} goes on at {}", name, from);
  if (state == "undecided") {
    return fmt::format(
        "undecided: {} is paused until {} and {} meet again, or until you decide with\n"
        "  godwit migration resolve {}",
        name, from, to, text_of(migration, "id"));
  }
  if (state == "stuck") {
    return fmt::format("stuck: {} stays at {}, and whether it runs is not known", name, from);
  }
  return fmt::format("{} from {} to {}: {}", name, from, to, state);
}

// "2 vms", "4 components", "3 vms and 4 components"
std::string number_and_kind(const json& members) {
  const auto components = std::ranges::count_if(
      members, [](const json& each) { return text_of(each, "vm").starts_with("component/"); });
  const auto vms = std::ssize(members) - components;
  if (components == 0) return fmt::format("{} vms", vms);
  if (vms == 0) return fmt::format("{} components", components);
  return fmt::format("{} vms and {} components", vms, components);
}

// Several that move as one.
std::string group_text(const json& group) {
  const json members = group.value("members", json::array());
  const std::string state = text_of(group, "state");
  std::string text =
      fmt::format("{} from {} to {}: {}", number_and_kind(members), text_of(group, "from"),
                  text_of(group, "to"), state == "partial" ? "only some moved" : state);
  if (group.contains("spread_ms")) {
    text += fmt::format(", {} between the first and the last hand-over", ms_of(group, "spread_ms"));
  }
  text += fmt::format("  (migration {})\n\n", text_of(group, "id"));
  Table table({{"VM"},
               {"STATE"},
               {"TOTAL", Align::right},
               {"PAUSE", Align::right},
               {"OVER THE WAN", Align::right},
               {"MIGRATION"},
               {"REASON"}});
  for (const json& member : members) {
    const json report = member.value("report", json::object());
    const json bytes = report.is_object() ? report.value("bytes", json::object()) : json::object();
    const bool is_component = report.is_object() && report.contains("state_bytes");
    table.row({text_of(member, "vm"), text_of(member, "state"), ms_of(report, "total_ms"),
               ms_of(report, "pause_ms"),
               is_component ? bytes_of(report, "sent_bytes") : bytes_of(bytes, "wan"),
               text_of(member, "id"), text_of(member, "reason")});
  }
  return text + table.text("no vms");
}

// Before anything is compared or compressed.
std::string estimate_line(const json& estimate) {
  std::string text = fmt::format("estimate: at most {}", bytes_of(estimate, "bytes"));
  if (number_of(estimate, "disk_bytes") > 0) {
    text += fmt::format(" ({} of memory, {} of disks", bytes_of(estimate, "memory_bytes"),
                        bytes_of(estimate, "disk_bytes"));
    if (number_of(estimate, "disk_there_bytes") > 0) {
      text += fmt::format(", {} to compare are there", bytes_of(estimate, "disk_there_bytes"));
    }
    text += ')';
  }
  if (number_of(estimate, "total_s") > 0) {
    text += fmt::format(", {:.1f} s at that bandwidth", number_of(estimate, "total_s"));
  }
  return text + fmt::format(", round trip {:.0f} ms\n", number_of(estimate, "rtt_ms"));
}

}  // namespace

std::string migration_text(const json& migration) {
  if (migration.contains("members")) return group_text(migration);
  std::string text = outcome(migration);
  if (const std::string reason = text_of(migration, "reason"); reason != "-") {
    text += fmt::format("\n  because {}", reason);
    const std::string again = text_of(migration, "resumed_as");
    if (again != "-") text += fmt::format("\n  it goes on as {}", again);
    if (migration.value("goes_on", false)) text += "\n  it goes on when both hosts are back";
  }
  text += fmt::format("  (migration {})\n", text_of(migration, "id"));
  if (migration.value("shared_disks", false)) {
    text += "  its disks are where they were: both hosts see them\n";
  }
  const auto report = migration.find("report");
  if (report == migration.end() || !report->is_object())
    return text + hooks_part(migration) + flip_part(migration) + clock_part(migration);
  if (report->contains("state_bytes")) return text + "\n" + component_part(*report);
  if (number_of(*report, "total_ms") > 0) text += "\n" + total_part(*report);
  if (number_of(*report, "pause_ms") > 0)
    text += "\n" + pause_part(*report) + prediction_line(*report);
  return text + "\n" + followed_part(*report) + network_part(migration) + counts_part(*report) +
         hooks_part(migration) + flip_part(migration) + clock_part(migration);
}

std::string preflight_text(const json& report) {
  if (report.contains("members")) {
    std::string text;
    for (const json& member : report["members"]) {
      text += fmt::format("{}\n{}\n", spoken_name(member), preflight_text(member));
    }
    return text;
  }
  Table table({{"CHECK"}, {"RESULT"}, {"DETAIL"}});
  for (const json& check : report.value("checks", json::array())) {
    table.row({text_of(check, "name"), check.value("ok", false) ? "ok" : "REFUSED",
               text_of(check, "detail")});
  }
  std::string text = table.text("no checks");
  const json estimate = report.value("estimate", json::object());
  if (!estimate.empty()) text += "\n" + estimate_line(estimate);
  for (const json& plan : report.value("network", json::array())) {
    const bool is_endpoint = plan.value("strategy", "") == "endpoint";
    text += fmt::format("\nstrategy {}, port {}:\n{}\n", is_endpoint ? "endpoint" : "nat",
                        text_of(plan, "port"),
                        is_endpoint ? endpoint_plan_text(plan) : plan_text(plan));
  }
  return text + (report.value("ok", false) ? "nothing speaks against this move\n"
                                           : "this move would be refused\n");
}

}  // namespace godwit::cli

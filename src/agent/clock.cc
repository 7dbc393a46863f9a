#include "agent/clock.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "os/socket.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMaxWhy = 1024;     // bytes that a peer may tell
constexpr double kMostMs = 1000.0 * 1e9;  // 30 years: what a peer may tell

Nanoseconds ms_field(const nlohmann::json& json, const char* key) {
  const double ms = std::clamp(qemu::number_at(json, key), -kMostMs, kMostMs);
  return Nanoseconds(static_cast<std::int64_t>(ms * 1e6));
}

}  // namespace

nlohmann::json to_json(const ClockReport& report) {
  nlohmann::json json = {{"behind_ms", to_ms(report.behind)}, {"corrected", report.corrected}};
  if (report.corrected) {
    json["left_ms"] = to_ms(report.left);
    json["uncertainty_ms"] = to_ms(report.uncertainty);
  } else {
    json["why"] = report.why;
  }
  return json;
}

ClockReport clock_report(const nlohmann::json& json) {
  return {.behind = ms_field(json, "behind_ms"),
          .corrected = qemu::flag_at(json, "corrected"),
          .left = ms_field(json, "left_ms"),
          .uncertainty = ms_field(json, "uncertainty_ms"),
          .why = qemu::text_at(json, "why").substr(0, kMaxWhy)};
}

std::unique_ptr<qemu::GuestClock> correct_clock(os::Loop& loop, const Vm& vm, Nanoseconds behind,
                                                std::function<void(const ClockReport&)> told) {
  ClockReport report;
  report.behind = behind;
  if (!vm.spec().guest_agent) {
    report.why = "the vm has no channel to a guest agent (vm run --guest-agent)";
    told(report);
    return nullptr;
  }
  return std::make_unique<qemu::GuestClock>(
      loop, os::unix_connect(loop, vm.paths().guest_agent().string()), behind,
      [report, name = vm.name(), told = std::move(told)](const auto& outcome) mutable {
        report.corrected = outcome.has_value();
        if (outcome) {
          report.left = outcome->left;
          report.uncertainty = outcome->uncertainty;
        } else {
          report.why = outcome.error().text;
          spdlog::warn("vm {}: its clock stays behind by {}: {}", name,
                       godwit::to_text(report.behind), report.why);
        }
        told(report);
      });
}

}  // namespace godwit::agent

#include "agent/flip.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "os/socket.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMaxWhy = 1024;  // bytes that a peer may tell
constexpr double kMostMs = 1e9;        // likewise
constexpr std::size_t kMostNotes = 64;

}  // namespace

nlohmann::json to_json(const FlipReport& report) {
  nlohmann::json json = {{"port", report.port}, {"done", report.why.empty()}};
  if (report.why.empty()) {
    json["ms"] = to_ms(report.took);
  } else {
    json["why"] = report.why;
  }
  if (!report.notes.empty()) json["notes"] = report.notes;
  return json;
}

FlipReport flip_report(const nlohmann::json& json) {
  const double ms = std::clamp(qemu::number_at(json, "ms"), 0.0, kMostMs);
  FlipReport report{.port = qemu::text_at(json, "port").substr(0, kMaxWhy),
                    .took = Nanoseconds(static_cast<std::int64_t>(ms * 1e6))};
  if (!qemu::flag_at(json, "done")) {
    report.why = qemu::text_at(json, "why").substr(0, kMaxWhy);
    if (report.why.empty()) report.why = "not said";
  }
  for (const nlohmann::json& note : qemu::member(json, "notes")) {
    if (!note.is_string() || report.notes.size() == kMostNotes) break;
    report.notes.push_back(note.get<std::string>().substr(0, kMaxWhy));
  }
  return report;
}

std::unique_ptr<qemu::GuestAgent> flip_to(os::Loop& loop, const Vm& vm, const PortId& nic,
                                          std::function<void(const FlipReport&)> told) {
  const auto found = std::ranges::find(vm.spec().nics, nic, &qemu::NicSpec::port);
  FlipReport report;
  if (found == vm.spec().nics.end()) {
    report.why = "it is not the vm's";
    told(report);
    return nullptr;
  }
  report.port = found->name;
  auto agent = std::make_unique<qemu::GuestAgent>(
      loop, os::unix_connect(loop, vm.paths().guest_agent().string()));
  qemu::make_default(*agent, *found, false,
                     [report, name = vm.name(), told = std::move(told)](const auto& done) mutable {
                       if (done) {
                         report.took = done->took;
                         report.notes = done->notes;
                       } else {
                         report.why = done.error().text;
                         spdlog::warn("vm {}: NIC {} is not its way out: {}", name, report.port,
                                      report.why);
                       }
                       told(report);
                     });
  return agent;
}

}  // namespace godwit::agent

#include "agent/findings.hh"

#include <algorithm>

#include "agent/records.hh"
#include "qemu/json.hh"

namespace godwit::agent {

Check passed(std::string name, std::string detail) {
  return {.name = std::move(name), .ok = true, .detail = std::move(detail)};
}

Check failed(std::string name, std::string detail) {
  return {.name = std::move(name), .ok = false, .detail = std::move(detail)};
}

bool all_ok(const std::vector<Check>& checks) {
  return std::ranges::all_of(checks, [](const Check& check) { return check.ok; });
}

std::string failures(const std::vector<Check>& checks) {
  std::string text;
  for (const Check& check : checks) {
    if (check.ok) continue;
    if (!text.empty()) text += "; ";
    text += check.detail;
  }
  return text;
}

nlohmann::json to_json(const std::vector<Check>& checks) {
  nlohmann::json array = nlohmann::json::array();
  for (const Check& check : checks) {
    array.push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  }
  return array;
}

nlohmann::json to_json(const Findings& findings) {
  nlohmann::json json = {{"checks", to_json(findings.checks)},
                         {"shared_disks", findings.shared_disks},
                         {"disks_there", findings.disks_there.bytes}};
  if (!findings.volumes.empty()) json["volumes"] = to_json(findings.volumes);
  return json;
}

Findings parse_findings(const nlohmann::json& reply) {
  Findings findings{.checks = {},
                    .shared_disks = qemu::flag_at(reply, "shared_disks"),
                    .volumes = {},
                    .disks_there = {qemu::unsigned_at(reply, "disks_there")}};
  if (reply.contains("volumes")) {
    if (auto seen = volume_sights(reply["volumes"])) findings.volumes = *std::move(seen);
  }
  for (const auto& check : array_field(reply, "checks")) {
    findings.checks.push_back({.name = text_field_or(check, "name", "?"),
                               .ok = qemu::flag_at(check, "ok"),
                               .detail = text_field_or(check, "detail", "")});
  }
  return findings;
}

}  // namespace godwit::agent

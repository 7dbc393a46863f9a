#include "doctor/finding.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::doctor {

std::string_view to_text(Level level) {
  switch (level) {
    case Level::ok:
      return "ok";
    case Level::warn:
      return "warn";
    case Level::fail:
      return "fail";
  }
  return "?";
}

Finding ok(std::string name, std::string detail) {
  return {.name = std::move(name), .level = Level::ok, .detail = std::move(detail)};
}

Finding warn(std::string name, std::string detail, std::string remedy) {
  return {std::move(name), Level::warn, std::move(detail), std::move(remedy)};
}

Finding failed(std::string name, std::string detail, std::string remedy) {
  return {std::move(name), Level::fail, std::move(detail), std::move(remedy)};
}

Level worst(const Findings& findings) {
  const auto at = std::ranges::max_element(findings, {}, &Finding::level);
  return at == findings.end() ? Level::ok : at->level;
}

nlohmann::json to_json(const Findings& findings) {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"name", finding.name},
                    {"level", to_text(finding.level)},
                    {"detail", finding.detail},
                    {"remedy", finding.remedy}});
  }
  return list;
}

}  // namespace godwit::doctor

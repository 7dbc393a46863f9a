#pragma once
// What `godwit doctor` says of one thing that a host needs: how it stands, and what to do about it.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::doctor {

enum class Level { ok, warn, fail };  // warn: the agent works, with less than it could have
std::string_view to_text(Level level);

struct Finding {
  std::string name;  // stable, for scripts: "tap-pair"
  Level level = Level::ok;
  std::string detail;
  std::string remedy{};  // empty when ok
  bool operator==(const Finding&) const = default;
};
using Findings = std::vector<Finding>;

Finding ok(std::string name, std::string detail);
Finding warn(std::string name, std::string detail, std::string remedy);
Finding failed(std::string name, std::string detail, std::string remedy);

Level worst(const Findings& findings);  // ok when there are none
nlohmann::json to_json(const Findings& findings);

}  // namespace godwit::doctor

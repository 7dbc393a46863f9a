#include "qemu/firmware.hh"

#include <fnmatch.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::map<std::string, fs::path> descriptors(const std::vector<fs::path>& directories) {
  std::map<std::string, fs::path> found;
  for (const fs::path& directory : directories) {
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end;
         at.increment(error)) {
      if (at->path().extension() == ".json") found[at->path().filename()] = at->path();
    }
  }
  return found;
}

bool has(const json& texts, std::string_view text) {
  return texts.is_array() && std::ranges::find(texts, json(text)) != texts.end();
}

bool is_for(const json& descriptor, const std::string& machine) {
  for (const json& target : member(descriptor, "targets")) {
    if (text_at(target, "architecture") != "x86_64") continue;
    for (const json& pattern : member(target, "machines")) {
      if (!pattern.is_string()) continue;
      if (::fnmatch(pattern.get<std::string>().c_str(), machine.c_str(), 0) == 0) return true;
    }
  }
  return false;
}

std::optional<Firmware> files_of(const json& mapping) {
  const json& code = member(mapping, "executable");
  const json& variables = member(mapping, "nvram-template");
  const auto format = parse_disk_format(text_at(code, "format"));
  if (!format || text_at(variables, "format") != "raw") return std::nullopt;
  Firmware firmware{.code = text_at(code, "filename"),
                    .code_format = *format,
                    .variables = text_at(variables, "filename")};
  std::error_code no_code, no_variables;
  firmware.code_size.bytes = fs::file_size(firmware.code, no_code);
  firmware.variables_size.bytes = fs::file_size(firmware.variables, no_variables);
  if (no_code || no_variables) return std::nullopt;
  return firmware;
}

}  // namespace

std::optional<Firmware> find_uefi(std::string_view machine,
                                  const std::vector<fs::path>& directories) {
  for (const auto& [name, path] : descriptors(directories)) {
    std::ifstream file(path);
    const json descriptor = json::parse(file, nullptr, false);
    const json& mapping = member(descriptor, "mapping");
    const bool fits = has(member(descriptor, "interface-types"), "uefi") &&
                      text_at(mapping, "device") == "flash" &&
                      !has(member(descriptor, "features"), "requires-smm") &&
                      is_for(descriptor, std::string(machine));
    if (!fits) continue;
    if (auto firmware = files_of(mapping)) return firmware;
  }
  return std::nullopt;
}

}  // namespace godwit::qemu

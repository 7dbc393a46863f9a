#include "agent/api_files.hh"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "agent/volumes.hh"

namespace godwit::agent {

Result<> check_files(const Config& config, const http::Caller& caller, const nlohmann::json& body,
                     std::initializer_list<const char*> keys) {
  if (!caller.remote()) return {};
  const auto images = config.image_dir / caller.tenant;
  for (const char* key : keys) {
    const std::string named = text_field_or(body, key, "");
    if (named.empty()) continue;
    std::error_code error;
    const auto real = std::filesystem::canonical(named, error);  // through all links
    const auto directory = std::filesystem::weakly_canonical(images, error);
    const auto inside = real.lexically_relative(directory);
    if (real.empty() || inside.empty() || *inside.begin() == ".." || inside == ".") {
      return fail("{}: '{}' is not a file in {} of host {}, which is where remote users' files are",
                  key, named, images.string(), config.name);
    }
  }
  return {};
}

Result<> check_volumes(const http::Caller& caller, const nlohmann::json& body) {
  if (caller.tenant.empty()) return {};
  for (const auto& disk : array_field(body, "disks")) {
    if (!is_volume(disk)) continue;
    return fail("disks at servers are given by operators of all tenants: ask one to run this vm");
  }
  return {};
}

}  // namespace godwit::agent

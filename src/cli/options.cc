#include "cli/options.hh"

#include <filesystem>

#include "base/id.hh"
#include "base/units.hh"

namespace godwit::cli {
namespace {

// CLI11 takes an empty text for "valid".
template <class Parse>
CLI::Option* add_with_unit(CLI::App& app, const std::string& name, std::string& value,
                           const std::string& help, const std::string& kind, Parse parse) {
  return app.add_option(name, value, help)
      ->type_name(kind)
      ->check([parse](const std::string& text) {
        const auto parsed = parse(text);
        return parsed ? std::string() : parsed.error().text;
      });
}

}  // namespace

CLI::Option* add_json(CLI::App& app, Context& context) {
  return app.add_flag("--json", context.as_json, "Print JSON instead of a table");
}

CLI::Option* add_duration(CLI::App& app, const std::string& name, std::string& value,
                          const std::string& help) {
  return add_with_unit(app, name, value, help, "TIME", parse_duration);
}

CLI::Option* add_rate(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help) {
  return add_with_unit(app, name, value, help, "RATE", parse_bit_rate);
}

CLI::Option* add_size(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help) {
  return add_with_unit(app, name, value, help, "SIZE", parse_byte_count);
}

namespace {
std::string check_name(const std::string& text) {
  if (is_valid_name(text)) return {};
  return fmt::format(
      "'{}' is not a name: use 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends",
      text);
}

// "web1", "vm/web1", "component/sw1", or libvirt's, whose names may have any characters.
std::string check_vm(const std::string& text) {
  constexpr std::string_view kLibvirt = "libvirt:";
  if (text.starts_with(kLibvirt) && text.size() > kLibvirt.size()) return "";
  for (const std::string_view kind : {"vm/", "component/"}) {
    if (text.starts_with(kind)) return check_name(text.substr(kind.size()));
  }
  return check_name(text);
}
}  // namespace

CLI::Option* add_name(CLI::App& app, const std::string& name, std::string& value,
                      const std::string& help) {
  return app.add_option(name, value, help)->check(check_name);
}

CLI::Option* add_vms(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                     const std::string& help) {
  return app.add_option(name, values, help)->check(check_vm);
}

void set_path(const Context& context, json& body, const std::string& key, std::string path) {
  if (path.empty()) return;
  if (context.is_remote()) {
    if (!path.starts_with('/')) {
      throw CLI::ValidationError(
          key, fmt::format("'{}' is on another host: give its path from /", path));
    }
  } else {
    if (!std::filesystem::exists(path)) {
      throw CLI::ValidationError(key, fmt::format("there is no file '{}'", path));
    }
    path = std::filesystem::absolute(path).lexically_normal().string();
  }
  body[key] = path;
}

void set_if_given(json& body, const std::string& key, const std::string& value) {
  if (!value.empty()) body[key] = value;
}

}  // namespace godwit::cli

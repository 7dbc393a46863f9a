#include "cli/lab_mount.hh"

#include <string_view>

#include "lab/lab_main.hh"
#include "lab/probe.hh"

namespace godwit::cli {

std::optional<int> run_mounted(std::span<const char* const> arguments) {
  if (arguments.empty() || std::string_view(arguments[0]) != "lab") return std::nullopt;
  const auto rest = arguments.subspan(1);
  if (!rest.empty() && std::string_view(rest[0]) == "probe") {
    return lab::probe_main(static_cast<int>(rest.size()), rest.data());  // rest[0] is its name
  }
  return lab::lab_main(rest);
}

}  // namespace godwit::cli

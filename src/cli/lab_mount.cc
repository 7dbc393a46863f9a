#include "cli/lab_mount.hh"

#include <string_view>

#include "lab/lab_main.hh"
#include "lab/probe.hh"

namespace godwit::cli {

std::optional<int> run_mounted(std::span<const char* const> arguments) {
  const std::string_view noun = arguments.empty() ? "" : arguments[0];
  if (noun == "lab" && arguments.size() > 1 && std::string_view(arguments[1]) == "probe") {
    return lab::probe_main(static_cast<int>(arguments.size()) - 1, arguments.data() + 1);
  }
  if (noun == "lab") return lab::lab_main(arguments.subspan(1));
  return std::nullopt;
}

}  // namespace godwit::cli

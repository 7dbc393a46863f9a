#include "cli/lab_mount.hh"

#include <cstdio>
#include <string_view>

#include "lab/lab_main.hh"

namespace godwit::cli {

std::optional<int> run_mounted(std::span<const char* const> arguments) {
  const std::string_view noun = arguments.empty() ? "" : arguments[0];
  if (noun == "lab") return lab::lab_main(arguments.subspan(1));
  if (noun == "probe") {
    std::fprintf(stderr, "godwit: this build was made without `godwit %s`\n", arguments[0]);
    return 1;
  }
  return std::nullopt;
}

}  // namespace godwit::cli

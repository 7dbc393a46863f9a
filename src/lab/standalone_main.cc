// The lab by itself, for its tests: `godwit-lab up` is `godwit lab up`.
#include <string_view>

#include "lab/lab_main.hh"

int main(int argc, char** argv) {
  std::span<const char* const> args(argv + 1, static_cast<std::size_t>(argc > 0 ? argc - 1 : 0));
  // The lab starts its own processes as `godwit lab ...`.
  if (!args.empty() && std::string_view(args.front()) == "lab") args = args.subspan(1);
  return godwit::lab::lab_main(args);
}

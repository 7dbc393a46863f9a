// The command line tool: this file owns the process's edges, cli/app.hh is the tool.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cli/app.hh"
#include "cli/lab_mount.hh"

namespace {

// `ps` shows arguments to everybody: an invitation's token goes from ours as soon as it is read.
void hide_tokens(std::span<char* const> arguments) {
  bool joins = false;
  for (char* argument : arguments) {
    const std::size_t token = std::string_view(argument).find('@');
    if (joins && token != std::string_view::npos) std::memset(argument, 'x', token);
    joins = joins || std::string_view(argument) == "join";
  }
}

}  // namespace

int main(int argc, char** argv) {
  using namespace godwit;
  const std::span<const char* const> arguments(argv + 1, argv + (argc > 0 ? argc : 1));
  if (const auto status = cli::run_mounted(arguments)) return *status;

  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe behind us is a failed write, not a sudden death
  const os::MonotonicSystemClock clock;
  cli::Io io{.out = std::cout, .err = std::cerr, .clock = clock};
  winsize window{};
  io.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0) {
    io.columns = window.ws_col;
  }
  std::vector<std::string> words(arguments.begin(), arguments.end());
  hide_tokens({argv, static_cast<std::size_t>(argc)});
  return static_cast<int>(cli::run(std::move(words), io));
}

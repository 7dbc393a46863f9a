// The command line tool: this file owns the process's edges, cli/app.hh is the tool.
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <iostream>

#include "cli/app.hh"
#include "cli/lab_mount.hh"

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
  return static_cast<int>(cli::run({arguments.begin(), arguments.end()}, io));
}

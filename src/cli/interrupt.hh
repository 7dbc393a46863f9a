#pragma once
// Ctrl-C and a deadline as one readable descriptor, for commands that follow a migration: while it
// lives SIGINT and SIGTERM do not end the process but are reported here.
#include <csignal>

#include "base/units.hh"
#include "os/fd.hh"

namespace godwit::cli {

class Interrupt final {
 public:
  // `limit` zero: no deadline. `hang_up`: the end of the terminal is an interrupt, too.
  explicit Interrupt(Nanoseconds limit = Nanoseconds(0), bool hang_up = false);
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  enum class Cause { none, signal, deadline };
  // What happened; a signal is reported once, a deadline for ever.
  Cause take();
  // Waits until something happens, `time` at most.
  void wait(Nanoseconds time) const;
  // Readable when take() has something to say.
  const os::Fd& fd() const { return both_; }

 private:
  os::Fd signals_;
  os::Fd deadline_;
  os::Fd both_;  // an epoll descriptor of the two
  sigset_t before_{};
};

}  // namespace godwit::cli

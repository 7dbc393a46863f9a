// The emulator's process: its descriptors, its scheduling, its control socket.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <csignal>

#include "lab/control.hh"
#include "lab/state.hh"
#include "lab/wan.hh"

namespace godwit::lab {
namespace {

// Above every ordinary process, below the kernel's own real-time threads (50).
constexpr int kRoundRobinPriority = 10;
constexpr int kNiceness = -15;

// On a machine whose processors are all busy, an ordinary process waits milliseconds for its turn.
std::string raise_priority() {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // nanoseconds; 50 us by default (prctl(2))
  const sched_param priority{.sched_priority = kRoundRobinPriority};
  if (::sched_setscheduler(0, SCHED_RR, &priority) == 0) return "round-robin";
  return ::setpriority(PRIO_PROCESS, 0, kNiceness) == 0 ? "nice" : "normal";
}

}  // namespace

int run_wan_emulator(const std::string& state_directory) {
  ::prctl(PR_SET_NAME, "lab:wan");
  ::signal(SIGPIPE, SIG_IGN);
  const auto lab = parse_lab(read_file(state_directory + "/lab.yaml", kMaxConfigBytes), "lab.yaml");
  if (!lab) fail_setup("{}", lab.error().text);
  std::vector<std::array<os::Fd, 2>> taps(lab->links.size());
  int fd = kFirstTapFd;
  for (auto& pair : taps) {
    for (os::Fd& tap : pair) tap.reset(fd++);
  }
  os::Loop loop;
  Wan wan(loop, *lab, std::move(taps));
  wan.set_scheduling(raise_priority());
  ControlServer control(loop, state_directory + "/wan.sock",
                        [&](const nlohmann::json& request) { return wan.handle(request); });
  const auto signals = loop.on_signals({SIGTERM, SIGINT}, [&](int) { loop.stop(); });
  loop.run();
  return 0;
}

}  // namespace godwit::lab

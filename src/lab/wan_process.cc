// The emulator's process: its descriptors, its scheduling, its control socket.
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>

#include "lab/control.hh"
#include "lab/state.hh"
#include "lab/wan.hh"

namespace godwit::lab {
namespace {

// Above every ordinary process, below the kernel's own real-time threads (50).
constexpr int kRoundRobinPriority = 10;
constexpr int kNiceness = -15;
// The shortest slice the scheduler grants (100 us, Linux 6.12): without any privilege a process
// that asks for little at a time gets it sooner.
constexpr std::uint64_t kSliceNanoseconds = 100'000;

// sched_setattr(2) has no wrapper in glibc 2.36; its first version, as linux/sched/types.h has it.
struct SchedulingAttributes {
  std::uint32_t size = sizeof(SchedulingAttributes);
  std::uint32_t policy = SCHED_OTHER;
  std::uint64_t flags = 0;
  std::int32_t nice = 0;
  std::uint32_t priority = 0;
  std::uint64_t runtime = 0;
  std::uint64_t deadline = 0;
  std::uint64_t period = 0;
};

// On a machine whose processors are all busy, an ordinary process waits milliseconds for its turn.
std::string raise_priority() {
  ::prctl(PR_SET_TIMERSLACK, 1UL);  // nanoseconds; 50 us by default (prctl(2))
  const sched_param priority{.sched_priority = kRoundRobinPriority};
  if (::sched_setscheduler(0, SCHED_RR, &priority) == 0) return "round-robin";
  SchedulingAttributes attributes{.nice = kNiceness, .runtime = kSliceNanoseconds};
  if (::syscall(SYS_sched_setattr, 0, &attributes, 0U) == 0) return "nice, short slices";
  attributes.nice = 0;
  return ::syscall(SYS_sched_setattr, 0, &attributes, 0U) == 0 ? "short slices" : "normal";
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

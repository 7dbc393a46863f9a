#include "agent/vm.hh"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <sstream>

#include "qemu/commands.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

// QEMU serves one QMP client at a time: an agent that just died may still hold the place.
constexpr Nanoseconds kReconnectDelay = milliseconds(200);

}  // namespace

Vm::Vm(os::Loop& loop, VmRecord record, qemu::VmPaths paths, os::Child process)
    : loop_(loop),
      record_(std::move(record)),
      paths_(std::move(paths)),
      process_(std::move(process)),
      since_(loop.now()) {
  process_.detach();
  record_.process = process_.identity();
  process_.on_exit(loop_, [this](const os::ExitStatus& status) { on_exit(status); });
  connect();
}

void Vm::connect() {
  // A migration may hold on to the old one: closed, it answers with errors.
  if (qmp_) retired_.push_back(std::move(qmp_));
  qmp_ = qemu::Qmp::connect(loop_, paths_.qmp().string(), name(),
                            {.ready = [this] { ask_status(); },
                             .event = [this](const qemu::QmpEvent& event) { on_event(event); },
                             .closed =
                                 [this](const std::string& reason) {
                                   if (state_ == "stopped") return;
                                   spdlog::warn("vm {}: QMP connection lost ({}), trying again",
                                                name(), reason);
                                   reconnect_ = loop_.after(kReconnectDelay, [this] { connect(); });
                                 }});
}

void Vm::ask_status() {
  qemu::query_status(*qmp_, [this](const Result<qemu::VmStatus>& status) {
    if (!status || leaving_) return;
    state_ = status->running ? "running" : status->state == "inmigrate" ? "incoming" : "paused";
  });
}

void Vm::leave() {
  leaving_ = true;
  state_ = "leaving";
}

void Vm::on_event(const qemu::QmpEvent& event) {
  if (event.name == "RESUME") state_ = "running";
  if (event.name == "STOP") state_ = "paused";
  const auto listeners = listeners_;
  for (const auto& weak : listeners) {
    if (const auto listener = weak.lock(); listener && listener->event) listener->event(event);
  }
}

void Vm::on_exit(const os::ExitStatus& status) {
  state_ = "stopped";
  reconnect_.reset();
  std::string reason = fmt::format("QEMU of vm {} ended: {}", name(), status.text());
  if (!status.success()) {
    if (const std::string tail = qemu::log_tail(paths_); !tail.empty())
      reason += "; it said: " + tail;
  }
  record_.stopped = reason;
  const auto listeners = listeners_;
  for (const auto& weak : listeners) {
    if (const auto listener = weak.lock(); listener && listener->died) listener->died(reason);
  }
}

Vm::Subscription Vm::subscribe(Listener listener) {
  std::erase_if(listeners_, [](const auto& weak) { return weak.expired(); });
  auto subscription = std::make_shared<const Listener>(std::move(listener));
  listeners_.push_back(subscription);
  return subscription;
}

void Vm::kill() {
  if (const auto sent = process_.kill(SIGKILL); !sent) {
    spdlog::debug("vm {}: {}", name(), sent.error().text);
  }
}

double Vm::cpu_seconds() const { return process_cpu_seconds(process_.pid()); }

double process_cpu_seconds(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  std::getline(file, line);
  const auto name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream rest(line.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) rest >> skipped;
  double user = 0, system = 0;
  rest >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace godwit::agent

#include "agent/hooks.hh"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

// From SIGKILL to the end; a process that hangs in the kernel longer than this is left to itself.
constexpr std::size_t kMaxHookFailure = 1024;  // bytes that a peer may tell
constexpr Nanoseconds kKillGrace = seconds(1);

fs::path directory_of(const HookPolicy& policy, HookMoment moment) {
  return policy.directory / fmt::format("{}.d", to_text(moment));
}

// As run-parts(8) does, names decide: editors' and dpkg's leftovers are no hooks.
bool is_hook_name(std::string_view name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || c == '.';
  };
  return name.front() != '.' && name.find(".dpkg-") == std::string_view::npos &&
         std::ranges::all_of(name, plain);
}

// What others may write would run as us.
Result<> is_ours_alone(const fs::path& path) {
  struct stat about{};
  if (::stat(path.c_str(), &about) != 0) return fail("{}", errno_text("look at " + path.string()));
  if ((about.st_uid == 0 || about.st_uid == ::geteuid()) && (about.st_mode & 0022U) == 0) return {};
  return fail(
      "{} may be changed by others and is not run: give it to root and take away the right to "
      "write "
      "of group and others",
      path.string());
}

// In the order of their names, the first one last.
Result<std::vector<fs::path>> list_hooks(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    const fs::path& path = at->path();
    if (is_hook_name(path.filename().string()) && fs::is_regular_file(path) &&
        ::access(path.c_str(), X_OK) == 0) {
      found.push_back(path);
    }
  }
  if (error == std::errc::no_such_file_or_directory) return found;
  if (error) return fail("cannot read the hooks in {}: {}", directory.string(), error.message());
  if (found.size() > kMaxHooks) {
    return fail("{} hooks in {} are more than {}", found.size(), directory.string(), kMaxHooks);
  }
  if (!found.empty()) {
    if (auto ok = is_ours_alone(directory); !ok) return std::unexpected(ok.error());
  }
  std::ranges::sort(found, std::greater());
  return found;
}

// For a line of the log.
std::string printable(std::string text) {
  std::ranges::replace_if(text, [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, ' ');
  return text;
}

}  // namespace

std::string_view to_text(HookMoment moment) {
  return moment == HookMoment::pre_pause ? "pre-pause" : "post-resume";
}

nlohmann::json to_json(const HookOutcome& outcome) {
  nlohmann::json json = {{"ms", to_ms(outcome.took)}, {"ran", outcome.ran}};
  if (!outcome.failure.empty()) json["failure"] = outcome.failure;
  return json;
}

HookOutcome hook_outcome(const nlohmann::json& json) {
  HookOutcome outcome{
      .ran = static_cast<int>(std::min<std::uint64_t>(qemu::unsigned_at(json, "ran"), kMaxHooks)),
      .took = {},
      .failure = text_field_or(json, "failure", "")};
  outcome.failure.resize(std::min(outcome.failure.size(), kMaxHookFailure));
  const double ms =
      std::clamp(qemu::number_at(json, "ms"), 0.0, to_ms(kMaxHooks * kMaxHookTimeout));
  outcome.took = Nanoseconds(static_cast<std::int64_t>(ms * 1e6));
  return outcome;
}

bool has_hooks(const HookPolicy& policy, HookMoment moment) {
  const auto hooks = list_hooks(directory_of(policy, moment));
  return !hooks || !hooks->empty();
}

HookRun::HookRun(os::Loop& loop, const HookPolicy& policy, HookCall call,
                 std::move_only_function<void(const HookOutcome&)> done)
    : loop_(loop),
      timeout_(policy.timeout),
      call_(std::move(call)),
      done_(std::move(done)),
      begun_(loop.now()) {
  auto hooks = list_hooks(directory_of(policy, call_.moment));
  if (hooks) programs_ = *std::move(hooks);
  if (!hooks) outcome_.failure = hooks.error().text;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) next();
  });
}

// A program that hangs in the kernel is not waited for.
HookRun::~HookRun() {
  if (!child_) return;
  (void)child_.kill(SIGKILL);
  if (!child_.wait(kKillGrace)) child_.detach();
}

std::vector<std::string> HookRun::environment() const {
  std::vector<std::string> env = {
      "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      fmt::format("GODWIT_MOMENT={}", to_text(call_.moment)),
      "GODWIT_VM=" + call_.vm,
      "GODWIT_MIGRATION=" + call_.migration.text(),
      "GODWIT_FROM=" + call_.from,
      "GODWIT_TO=" + call_.to};
  if (!call_.outcome.empty()) env.push_back("GODWIT_OUTCOME=" + call_.outcome);
  return env;
}

void HookRun::next() {
  const bool stop = call_.moment == HookMoment::pre_pause && !outcome_.failure.empty();
  if (programs_.empty() || stop) return conclude();
  const fs::path program = std::move(programs_.back());
  programs_.pop_back();
  name_ = program.filename().string();
  started_ = loop_.now();
  output_kept_.clear();
  killed_.clear();
  output_bytes_ = 0;
  running_ = true;
  ++outcome_.ran;
  try {
    start(program);
  } catch (const SetupError& error) {
    ended(error.what());
  }
}

void HookRun::start(const fs::path& program) {
  if (auto ok = is_ours_alone(program); !ok) return ended(ok.error().text);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ended(errno_text("make a pipe"));
  output_ = os::Fd(ends[0]);
  const os::Fd write(ends[1]);
  os::set_nonblocking(output_);
  child_ = os::Child::spawn({.argv = {program.string()},
                             .env = environment(),
                             .stdout_fd = write.number(),
                             .stderr_fd = write.number(),
                             .cwd = "/",
                             .whole_session = true,
                             .dies_with_us = true});
  output_watch_ = loop_.watch(output_, EPOLLIN, [this](auto) { read_output(); });
  child_.on_exit(loop_, [this](const os::ExitStatus& status) {
    if (!killed_.empty()) return ended(killed_);
    ended(status.success() ? std::string() : status.text());
  });
  timer_ = loop_.after(timeout_, [this] {
    kill(fmt::format("it took longer than {} and was killed", godwit::to_text(timeout_)));
  });
}

void HookRun::kill(std::string why) {
  killed_ = std::move(why);
  (void)child_.kill(SIGKILL);  // it may have ended meanwhile
  timer_ = loop_.after(kKillGrace, [this] {
    child_.detach();
    ended(killed_);
  });
}

// All of it, so that a hook that prints much does not wait for us; what is kept is bounded.
void HookRun::read_output() {
  std::array<char, 16 * 1024> buffer;
  const auto got = ::read(output_.number(), buffer.data(), buffer.size());
  if (got > 0) {
    const auto room = kHookOutputKept - output_kept_.size();
    output_kept_.append(buffer.data(), std::min(static_cast<std::size_t>(got), room));
    output_bytes_ += static_cast<std::size_t>(got);
    if (output_bytes_ <= kMaxHookOutput || !killed_.empty()) return;
    output_watch_.reset();
    kill(fmt::format("it printed more than {} and was killed",
                     godwit::to_text(ByteCount{kMaxHookOutput})));
  } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
    output_watch_.reset();
  }
}

void HookRun::ended(std::string failure) {
  if (!std::exchange(running_, false)) return;
  if (output_watch_) read_output();
  output_watch_.reset();
  timer_.reset();
  output_.reset();
  const auto took = godwit::to_text(loop_.now() - started_);
  const auto who = fmt::format("{} hook {}", to_text(call_.moment), name_);
  if (failure.empty()) {
    spdlog::info("migration {}: {} of vm {} took {}", call_.migration.text(), who, call_.vm, took);
  } else {
    spdlog::warn("migration {}: {} of vm {} failed after {}: {}{}{}", call_.migration.text(), who,
                 call_.vm, took, failure,
                 output_kept_.empty() ? "" : "; it said: ", printable(output_kept_));
    if (outcome_.failure.empty()) outcome_.failure = fmt::format("{}: {}", who, failure);
  }
  // Not here: a Child that calls us is still being watched.
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    child_ = {};
    next();
  });
}

void HookRun::conclude() {
  outcome_.took = loop_.now() - begun_;
  auto done = std::move(done_);
  done(outcome_);
}

}  // namespace godwit::agent

#pragma once
// What the operator wants to be run around a move: programs in DIR/pre-pause.d, before the vCPUs
// stop at the source, and in DIR/post-resume.d, after they run at the target, or again at the
// source when the move was aborted after pre-pause had begun. One after the other in the order of
// their names, each with its time-out, with a clean environment (docs/man/godwitd.8). None runs
// within the pause. Control thread.
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "base/id.hh"
#include "base/result.hh"
#include "os/child.hh"

namespace godwit::agent {

enum class HookMoment : std::uint8_t { pre_pause, post_resume };
std::string_view to_text(HookMoment moment);

struct HookCall {
  HookMoment moment = HookMoment::pre_pause;
  MigrationId migration;
  std::string vm, from, to;
  std::string outcome;  // post-resume: "moved" or "aborted"
};

inline constexpr std::size_t kMaxHooks = 32;             // of a moment
inline constexpr std::size_t kMaxHookOutput = 16 << 20;  // bytes; more is a mistake
inline constexpr std::size_t kHookOutputKept = 1024;     // bytes, for the log of a failure

struct HookOutcome {
  int ran = 0;
  Nanoseconds took{};
  std::string failure;  // of the first that failed; empty if none did
};

// The hooks of one moment while they run. Destroyed earlier it kills the one that is running, and
// whatever that has started in its session.
class HookRun final {
 public:
  // pre-pause ends at the first failure, post-resume runs all. `done` is called once, from the
  // loop, and may destroy this.
  HookRun(os::Loop& loop, const HookPolicy& policy, HookCall call,
          std::move_only_function<void(const HookOutcome&)> done);
  HookRun(const HookRun&) = delete;
  HookRun& operator=(const HookRun&) = delete;
  ~HookRun();

 private:
  void next();
  void start(const std::filesystem::path& program);
  void read_output();
  void kill(std::string why);
  void ended(std::string failure);
  void conclude();
  std::vector<std::string> environment() const;

  os::Loop& loop_;
  Nanoseconds timeout_;
  HookCall call_;
  std::move_only_function<void(const HookOutcome&)> done_;
  std::vector<std::filesystem::path> programs_;  // the next one last
  std::string name_;                             // of the one that runs
  os::Child child_;
  os::Fd output_;
  std::string output_kept_, killed_;  // killed_: why
  std::size_t output_bytes_ = 0;
  bool running_ = false;
  os::Loop::Watch output_watch_;
  os::Loop::Timer timer_;
  Instant begun_, started_;
  HookOutcome outcome_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// {ms, ran, failure?}; from a peer, whatever it sent.
nlohmann::json to_json(const HookOutcome& outcome);
HookOutcome hook_outcome(const nlohmann::json& json);

// Whether there is anything to be run at this moment, also if it cannot be: HookRun says why.
bool has_hooks(const HookPolicy& policy, HookMoment moment);

}  // namespace godwit::agent

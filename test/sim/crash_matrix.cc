#include "crash_matrix.hh"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "cloud.hh"

namespace godwit::sim {
namespace {

using migrate::Moment;
using migrate::Point;
using migrate::SourceState;
using migrate::TargetState;

constexpr const char* kSource = "h0";
constexpr const char* kTarget = "h1";
constexpr const char* kPeer = "h2";
constexpr const char* kGuest = "web";

constexpr Nanoseconds kRestartAfter = seconds(1);  // an agent, by its supervisor
constexpr Nanoseconds kPowerAfter = seconds(10);
constexpr Nanoseconds kDiskFor = seconds(20);
constexpr Nanoseconds kForEver = seconds(100);
// Once both agents are up and can speak: the sum of the bounds that may follow each other.
constexpr Nanoseconds kDecidedWithin = seconds(25);
// From the death of an agent, which comes back, to a guest that runs.
constexpr Nanoseconds kServingWithin = seconds(5);
constexpr Nanoseconds kOver = migrate::kDrainingBound + seconds(30);

class Run final {
 public:
  Run(const Story& story, bool is_traced) : story_(story), cloud_(story.seed, weather(), 3) {
    cloud_.world().is_traced = is_traced;
    cloud_.on_point = [this](const std::string& host, const Point& point) { reached(host, point); };
    cloud_.add_guest("lan", kPeer, kGuest);
    cloud_.add_guest(kGuest, kSource, "lan");
    cloud_.boot();
  }

  // The points that the story passes, in order.
  std::vector<Point> passes() {
    tell();
    cloud_.run_for(kOver + seconds(30));
    return passed_;
  }

  Nanoseconds stood() { return cloud_.guest(kGuest).longest_stand; }
  bool only_agents_died() const {
    return fault_ <= Fault::both_agents && !story_.killed_at &&
           story_.kind < Story::Kind::postcopy_lost;
  }

  // Empty: as it should be.
  std::string strike(const Point& at, Fault fault) {
    wanted_ = at;
    fault_ = fault;
    tell();
    const Instant latest = cloud_.world().now() + kOver;
    while (!struck_at_ && cloud_.world().now() < latest) cloud_.run_for(milliseconds(100));
    if (!struck_at_) return "the point was not reached";
    if (fault == Fault::cut_for_ever) {
      run_until(*struck_at_ + kForEver);
      judge("while the link is cut", allowed_);
      cloud_.world().heal_link(kSource, kTarget);
      healed_at_ = cloud_.world().now();
      if (allowed_.erase(Outcome::waiting) > 0) allowed_.insert(Outcome::target);
    }
    run_until(healed_at_ + kDecidedWithin);
    judge(fmt::format("{} after all is well again", godwit::to_text(kDecidedWithin)), allowed_);
    run_until(healed_at_ + kDecidedWithin + kOver);
    judge("in the end", allowed_);
    if (only_agents_died() && stood() > kServingWithin) {
      cloud_.fail(fmt::format("the guest stood for {}", godwit::to_text(stood())));
    }
    if (cloud_.failure().empty()) expect_nothing_left();
    return cloud_.failure();
  }

 private:
  static Weather weather() { return {}; }
  bool is_postcopy() const {
    return story_.kind == Story::Kind::postcopy || story_.kind == Story::Kind::postcopy_lost;
  }

  void run_until(Instant when) {
    if (when > cloud_.world().now()) cloud_.run_for(when - cloud_.world().now());
  }

  void tell() {
    Agent& source = *cloud_.agent(kSource);
    if (!source.migrate(kGuest, kTarget, {.hold = story_.kind == Story::Kind::hold},
                        is_postcopy())) {
      return;
    }
    const auto later = [this](Nanoseconds delay, const char* host, auto call) {
      cloud_.world().after(delay, [this, host, call] {
        if (Agent* agent = cloud_.agent(host)) call(*agent);
      });
    };
    // While the memory is copied, most of the time.
    const Nanoseconds when = cloud_.dice().between(milliseconds(100), milliseconds(900));
    switch (story_.kind) {
      case Story::Kind::plain:
      case Story::Kind::postcopy:
      case Story::Kind::postcopy_lost:  // see reached()
        break;
      case Story::Kind::hold:
        later(seconds(3), kSource, [](Agent& agent) { agent.cutover(kGuest); });
        break;
      case Story::Kind::abort:
        later(when, kSource, [](Agent& agent) { agent.abort(kGuest); });
        break;
      case Story::Kind::give_up:
        later(when, kTarget, [](Agent& agent) { agent.abort(kGuest); });
        break;
      case Story::Kind::late_give_up:  // see released_and_cut()
      case Story::Kind::resolve:
        break;
    }
  }

  // The source's word that it has released the guest does not leave: an operator decides.
  void released_and_cut() {
    World& world = cloud_.world();
    world.cut_link(kSource, kTarget);
    const bool at_target = story_.kind == Story::Kind::late_give_up;
    world.after(seconds(5), [this, at_target] {
      if (at_target) {
        if (Agent* agent = cloud_.agent(kTarget)) agent->abort(kGuest);
        return;
      }
      cloud_.kill_qemu(kTarget, kGuest);  // the operator sees to it, and says so
      if (Agent* agent = cloud_.agent(kSource)) agent->resolve_target_destroyed(kGuest);
    });
    world.after(seconds(8), [this] { cloud_.world().heal_link(kSource, kTarget); });
  }

  void reached(const std::string& host, const Point& point) {
    passed_.push_back(point);
    const auto when = story_.kind == Story::Kind::late_give_up ? "target.loaded.note.after"
                                                               : "source.released.record.after";
    if (story_.kind >= Story::Kind::late_give_up && !cut_ && to_text(point) == when) {
      cut_ = true;
      released_and_cut();
    }
    if (story_.kind == Story::Kind::postcopy_lost && !cut_ &&
        to_text(point) ==
            (story_.seed % 2 == 0 ? "target.owner.record.after" : "source.draining.note.after")) {
      cut_ = true;
      cloud_.world().after({}, [this] { cloud_.kill_qemu(kSource, kGuest); });
    }
    if (story_.killed_at && !killed_ && point == *story_.killed_at) {
      killed_ = true;
      restart_later(host, kRestartAfter);
      throw Killed{};
    }
    if (!wanted_ || struck_at_ || point != *wanted_ || (story_.killed_at && !killed_)) return;
    cloud_.world().trace("---- {} at {}", to_text(*fault_), to_text(point));
    struck_at_ = healed_at_ = cloud_.world().now();
    allowed_ = allowed(source_journal(), target_journal(), *fault_);
    // After another death the stream's end may be missing; an operator may have given it up.
    const bool given_up = story_.kind == Story::Kind::give_up;
    if (((story_.killed_at || given_up) && *fault_ == Fault::source_qemu) ||
        (given_up && *fault_ == Fault::source_power)) {
      allowed_.insert(Outcome::lost);
    }
    // Until all of its memory has followed the guest needs both QEMUs.
    if (story_.kind == Story::Kind::postcopy &&
        (*fault_ == Fault::source_qemu || *fault_ == Fault::source_power)) {
      allowed_.insert(Outcome::lost);
    }
    if (story_.kind == Story::Kind::postcopy_lost) {
      allowed_ = {Outcome::source, Outcome::target, Outcome::lost};
    }
    // The operator saw to it that the target has nothing, or never will.
    if (story_.kind >= Story::Kind::late_give_up &&
        (*fault_ == Fault::source_qemu || *fault_ == Fault::source_power)) {
      allowed_ = {Outcome::lost};
    }
    strike_now(host);
  }

  SourceState source_journal() {
    for (const auto& document : cloud_.disk(kSource).list("migration-source")) {
      return *migrate::source_state(document.body["state"].get<std::string>());
    }
    return SourceState::planned;
  }
  TargetState target_journal() {
    for (const auto& document : cloud_.disk(kTarget).list("migration-target")) {
      return *migrate::target_state(document.body["state"].get<std::string>());
    }
    return TargetState::planned;
  }

  void restart_later(const std::string& host, Nanoseconds delay) {
    healed_at_ = std::max(healed_at_, cloud_.world().now() + delay);
    cloud_.world().after(delay, [this, host] { cloud_.start_agent(host); });
  }

  void end_agent(const std::string& self, const std::string& host) {
    restart_later(host, kRestartAfter);
    if (self == host) throw Killed{};
    cloud_.kill_agent(host);
  }

  void lose_power(const std::string& self, const std::string& host) {
    restart_later(host, kPowerAfter);
    cloud_.world().after({}, [this, host] { cloud_.power_off(host); });
    if (self == host) throw Killed{};
    cloud_.power_off(host);
  }

  void cut(Nanoseconds length) {
    cloud_.world().cut_link(kSource, kTarget);
    if (length == kForEver) return;
    healed_at_ = cloud_.world().now() + length;
    cloud_.world().after(length, [this] { cloud_.world().heal_link(kSource, kTarget); });
  }

  void fill_disk(const std::string& host) {
    cloud_.disk(host).is_full = true;
    healed_at_ = cloud_.world().now() + kDiskFor;
    cloud_.world().after(kDiskFor, [this, host] {
      cloud_.disk(host).is_full = false;
      if (Agent* agent = cloud_.agent(host)) (void)agent->store().catch_up();
    });
  }

  void strike_now(const std::string& self) {
    switch (*fault_) {
      case Fault::source_agent:
        return end_agent(self, kSource);
      case Fault::target_agent:
        return end_agent(self, kTarget);
      case Fault::both_agents:
        restart_later(kSource, kRestartAfter);
        restart_later(kTarget, kRestartAfter);
        cloud_.kill_agent(self == kSource ? kTarget : kSource);
        throw Killed{};
      case Fault::source_qemu:
        return kill_qemu(kSource);
      case Fault::target_qemu:
        return kill_qemu(kTarget);
      case Fault::source_power:
        return lose_power(self, kSource);
      case Fault::target_power:
        return lose_power(self, kTarget);
      case Fault::cut_1s:
        return cut(seconds(1));
      case Fault::cut_30s:
        return cut(seconds(30));
      case Fault::cut_for_ever:
        return cut(kForEver);
      case Fault::source_disk:
        return fill_disk(kSource);
      case Fault::target_disk:
        return fill_disk(kTarget);
    }
  }

  void kill_qemu(const std::string& host) {
    if (cloud_.kill_qemu(host, kGuest)) return;
    if (story_.kind == Story::Kind::postcopy_lost) return;  // it was lost before
    allowed_ = {Outcome::source, Outcome::target};          // there is none
  }

  Outcome outcome() {
    const Guest& guest = cloud_.guest(kGuest);
    if (guest.runs_at) return *guest.runs_at == kSource ? Outcome::source : Outcome::target;
    return cloud_.is_lost(kGuest) ? Outcome::lost : Outcome::waiting;
  }

  void judge(std::string_view when, const std::set<Outcome>& may_be) {
    const Outcome is = outcome();
    if (may_be.contains(is)) return;
    std::string expected;
    for (const Outcome each : may_be) expected += fmt::format(" {}", to_text(each));
    std::string agents;
    for (const char* host : {kSource, kTarget}) {
      agents += fmt::format("; {}:{}", host,
                            cloud_.agent(host) ? cloud_.agent(host)->describe() : " down");
    }
    cloud_.fail(fmt::format("{} the guest is {}, not{}{}", when, to_text(is), expected, agents));
  }

  // Both agents agree on where it is, and nothing of it is anywhere else.
  void expect_nothing_left() {
    const Outcome is = outcome();
    for (const char* host : {kSource, kTarget}) {
      Agent& agent = *cloud_.agent(host);
      const bool here = is == (host == std::string(kSource) ? Outcome::source : Outcome::target);
      const auto port = agent.store().find("port", cloud_.guest(kGuest).port.text());
      if (here != agent.has_vm(kGuest)) cloud_.fail(fmt::format("{} has a wrong vm", host));
      if (is != Outcome::lost && here != port.has_value()) {
        cloud_.fail(fmt::format("{} has a wrong port", host));
      }
      const auto live = cloud_.world().host(host).engine()->live_epoch(cloud_.guest(kGuest).port);
      if (is != Outcome::lost && here != live.has_value()) {
        cloud_.fail(fmt::format("{} has a wrong live port", host));
      }
      if (!agent.is_idle()) cloud_.fail(fmt::format("{} is not done:{}", host, agent.describe()));
    }
    if (is != Outcome::lost && cloud_.processes_of(kGuest) != 1) cloud_.fail("a QEMU is left");
    if (is != Outcome::lost) expect_wire();
  }

  void expect_wire() {
    const std::size_t before = cloud_.guest("lan").received.size();
    const std::size_t back = cloud_.guest(kGuest).received.size();
    for (int i = 0; i < 10; ++i) {
      cloud_.send_frame(kGuest);
      cloud_.send_frame("lan");
      cloud_.run_for(milliseconds(20));
    }
    cloud_.run_for(seconds(1));
    if (cloud_.guest("lan").received.size() != before + 10) cloud_.fail("the guest is not heard");
    if (cloud_.guest(kGuest).received.size() != back + 10) cloud_.fail("the guest hears nothing");
  }

  const Story story_;
  Cloud cloud_;
  std::vector<Point> passed_;
  bool killed_ = false, cut_ = false;
  std::optional<Point> wanted_;
  std::optional<Fault> fault_;
  std::optional<Instant> struck_at_;
  Instant healed_at_{};
  std::set<Outcome> allowed_;
};

// For each point the stories that come to it, the plainest first.
std::map<Point, std::vector<Story>> find_stories(std::uint64_t wanted) {
  const auto points = migrate::handover_points();
  std::map<Point, std::vector<Story>> stories;
  const auto missing = [&] {
    return std::ranges::any_of(points, [&](const Point& p) { return stories[p].size() < wanted; });
  };
  const auto add = [&](const Story& story) {
    auto passed = Run(story, false).passes();
    // After the death that leads to it.
    if (story.killed_at) {
      const auto death = std::ranges::find(passed, *story.killed_at);
      if (death == passed.end()) return;  // a hook may have ended the move before
      passed.erase(passed.begin(), death + 1);
    }
    std::ranges::sort(passed);
    const auto repeated = std::ranges::unique(passed);
    passed.erase(repeated.begin(), repeated.end());
    for (const Point& point : passed) {
      if (stories[point].size() < wanted) stories[point].push_back(story);
    }
  };
  const std::uint64_t seeds = 4 * wanted;
  for (std::uint64_t seed = 1; seed <= seeds && missing(); ++seed) {
    using enum Story::Kind;
    for (const auto kind : {plain, hold, abort, give_up}) add({.kind = kind, .seed = seed});
  }
  for (const Point& first : points) {
    if (!missing()) break;
    if (!stories[first].empty() && !stories[first].front().killed_at) {
      Story story = stories[first].front();
      story.killed_at = first;
      add(story);
    }
  }
  for (std::uint64_t seed = 1; seed <= seeds && missing(); ++seed) {
    using enum Story::Kind;
    for (const auto kind : {postcopy, postcopy_lost}) add({.kind = kind, .seed = seed});
    for (const Point& killed_at : {Point{"source", "committed", "note", Moment::before},
                                   Point{"source", "draining", "wait", Moment::after}}) {
      add({.kind = postcopy, .seed = seed, .killed_at = killed_at});
    }
  }
  // An operator's decisions are no part of the table: only for points that nothing else comes to.
  std::erase_if(stories, [](const auto& entry) { return entry.second.empty(); });
  const auto without = stories;
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    for (const auto kind : {Story::Kind::late_give_up, Story::Kind::resolve}) {
      add({.kind = kind, .seed = seed});
    }
  }
  for (const auto& [point, found] : without) stories[point] = found;
  for (const Point& point : points) stories[point];
  return stories;
}

}  // namespace

std::string_view to_text(Story::Kind kind) {
  switch (kind) {
    case Story::Kind::plain:
      return "plain";
    case Story::Kind::hold:
      return "hold";
    case Story::Kind::abort:
      return "abort";
    case Story::Kind::give_up:
      return "give_up";
    case Story::Kind::postcopy:
      return "postcopy";
    case Story::Kind::postcopy_lost:
      return "postcopy_lost";
    case Story::Kind::late_give_up:
      return "late_give_up";
    case Story::Kind::resolve:
      return "resolve";
  }
  return "?";
}

std::vector<std::pair<Point, Story>> stories() {
  std::vector<std::pair<Point, Story>> first;
  for (const auto& [point, found] : find_stories(1)) {
    if (!found.empty()) first.emplace_back(point, found.front());
  }
  return first;
}

std::string to_text(const Story& story) {
  std::string text = fmt::format("{}, seed {}", to_text(story.kind), story.seed);
  if (story.killed_at) text += ", killed before at " + to_text(*story.killed_at);
  return text;
}

CrashResult run_crash_matrix(const CrashOptions& options) {
  CrashResult result;
  for (const auto& [point, stories] : find_stories(options.seeds)) {
    ++result.points;
    if (!options.point.empty() && to_text(point) != options.point) continue;
    if (stories.empty()) result.failures.push_back(to_text(point) + ": no story comes to it");
    for (const Story& story : stories) {
      for (const Fault fault : all_faults()) {
        if (!options.fault.empty() && to_text(fault) != options.fault) continue;
        ++result.runs;
        Run run(story, options.is_traced);
        const std::string failure = run.strike(point, fault);
        if (run.only_agents_died()) {
          result.longest_stand = std::max(result.longest_stand, run.stood());
        }
        if (failure.empty()) continue;
        result.failures.push_back(fmt::format("--crash --point {} --fault {} ({}): {}",
                                              to_text(point), to_text(fault), to_text(story),
                                              failure));
      }
    }
  }
  return result;
}

}  // namespace godwit::sim

// `godwit migrate` and friends against scripted events: progress, outcomes, Ctrl-C, lost agents.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "cli/fake_agent.hh"
#include "cli/when.hh"

namespace godwit::cli {
namespace {

json migration(const std::string& state) {
  return {{"id", "m1"}, {"vm", "web"}, {"from", "east"}, {"to", "west"}, {"state", state}};
}

json progress(const std::string& phase, int round) {
  return {{"phase", phase},          {"round", round}, {"remaining_bytes", 47'396'352},
          {"rate_bps", 387'000'000}, {"eta_s", 1.04},  {"predicted_pause_ms", 210.4}};
}

struct FollowTest : ::testing::Test {
  FollowTest() { agent.answer("POST /v1/migrations", migration("planned"), 202); }

  // The agent answers these states one after the other, the last one for ever.
  void states(const std::vector<std::string>& all) {
    for (const auto& state : all) agent.answer("GET /v1/migrations/m1", migration(state));
  }
  Ran godwit(std::vector<std::string> arguments, bool terminal = false) {
    agent.start();
    return run_cli(agent.socket(), std::move(arguments), terminal);
  }
  int count(const std::string& what) const {
    int found = 0;
    for (const auto& asked : agent.asked()) found += asked.what == what ? 1 : 0;
    return found;
  }
  FakeAgent agent;
};

TEST_F(FollowTest, AMoveThatSucceedsShowsItsProgressAndExitsZero) {
  states({"preparing", "done"});
  agent.events("/v1/migrations/m1/events", {{"progress", progress("copying", 1)},
                                            {"progress", progress("copying", 1)},
                                            {"progress", progress("copying", 2)},
                                            {"done", {{"report", {}}}}});
  const auto ran =
      godwit({"migrate", "web", "--to", "west", "--max-downtime", "300ms", "--bandwidth", "200mbit",
              "--on-diverge", "pause", "--stop-policy", "smart"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.err,
            "copying    round 1  45.2 MiB left  387 Mbit/s  ETA 1.0 s  pause ~210 ms\n"
            "copying    round 2  45.2 MiB left  387 Mbit/s  ETA 1.0 s  pause ~210 ms\n");
  EXPECT_EQ(ran.out, "vm web moved from east to west  (migration m1)\n");
  EXPECT_EQ(agent.body_of("POST /v1/migrations"), json({{"vm", "web"},
                                                        {"to", "west"},
                                                        {"max_downtime", "300ms"},
                                                        {"bandwidth", "200mbit"},
                                                        {"on_diverge", "pause"},
                                                        {"stop_policy", "smart"}}));
}

TEST_F(FollowTest, SeveralVmsAreOneMigration) {
  states({"preparing", "done"});
  agent.events("/v1/migrations/m1/events", {{"done", {{"report", {}}}}});
  const auto ran = godwit({"migrate", "web", "db", "--to", "west", "--order"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(agent.body_of("POST /v1/migrations"),
            json({{"vms", {"web", "db"}}, {"to", "west"}, {"in_order", true}}));
}

TEST_F(FollowTest, ADivergenceIsToldOnceBeforeItsOutcome) {
  states({"copying", "aborted"});
  json diverged = progress("copying", 5);
  diverged["throttle_percent"] = 99;
  diverged["divergence"] = "vm web will not converge below 300 ms";
  agent.events("/v1/migrations/m1/events", {{"progress", progress("copying", 5)},
                                            {"progress", diverged},
                                            {"progress", diverged},
                                            {"done", json::object()}});
  const auto ran = godwit({"migrate", "web", "--to", "west"});
  EXPECT_EQ(ran.status, 4);
  EXPECT_EQ(ran.err.substr(ran.err.find('\n') + 1),
            "vm web will not converge below 300 ms\n"
            "move aborted: vm web goes on at east  (migration m1)\n");
}

TEST_F(FollowTest, ATerminalGetsOneLiveLine) {
  states({"preparing", "done"});
  agent.events("/v1/migrations/m1/events", {{"progress", progress("copying", 1)},
                                            {"progress", progress("copying", 2)},
                                            {"done", json::object()}});
  const auto ran = godwit({"migrate", "web", "--to", "west"}, true);
  EXPECT_EQ(std::ranges::count(ran.err, '\r'), 2);
  EXPECT_EQ(std::ranges::count(ran.err, '\n'), 1);
  EXPECT_TRUE(ran.err.ends_with('\n'));
}

TEST_F(FollowTest, TheStateDecidesTheExitStatus) {
  const std::vector<std::pair<std::string, int>> outcomes = {
      {"done", 0}, {"aborted", 4}, {"undecided", 5}, {"stuck", 5}};
  for (const auto& [state, status] : outcomes) {
    FakeAgent other;
    other.answer("POST /v1/migrations", migration("planned"), 202);
    other.answer("GET /v1/migrations/m1", migration(state));
    other.start();
    const auto ran = run_cli(other.socket(), {"migrate", "web", "--to", "west"});
    EXPECT_EQ(ran.status, status) << state;
    EXPECT_EQ(run_cli(other.socket(), {"migration", "wait", "m1"}).status, status) << state;
  }
}

TEST_F(FollowTest, DetachPrintsTheIdAndAsksNoMore) {
  const auto ran = godwit({"migrate", "web", "--to", "west", "--detach"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_EQ(ran.out, "m1\n");
  EXPECT_EQ(agent.asked().size(), 1u);
}

TEST_F(FollowTest, HoldEndsWhenTheTargetIsInStep) {
  states({"copying", "ready"});
  agent.events("/v1/migrations/m1/events",
               {{"progress", progress("copying", 1)}, {"progress", progress("ready", 9)}}, true);
  const auto ran = godwit({"migrate", "web", "--to", "west", "--hold"});
  EXPECT_EQ(ran.status, 0);
  EXPECT_NE(ran.out.find("godwit migration cutover m1"), std::string::npos) << ran.out;
  EXPECT_EQ(agent.body_of("POST /v1/migrations").at("hold"), true);
}

TEST_F(FollowTest, AtIsSentAsUtc) {
  const auto ran = godwit({"migrate", "web", "--to", "west", "--detach", "--at", "+1h"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  const std::string at = agent.body_of("POST /v1/migrations").at("at");
  const std::time_t now = std::time(nullptr);
  const auto parsed = parse_when(at, now);
  ASSERT_TRUE(parsed) << at;
  EXPECT_NEAR(static_cast<double>(*parsed - now), 3600, 60);
}

TEST_F(FollowTest, DryRunPrintsTheChecksAndExits3WhenRefused) {
  FakeAgent other;
  other.answer("POST /v1/migrations",
               {{"ok", false},
                {"checks",
                 {{{"name", "memory"}, {"ok", true}, {"detail", "2 GiB free"}},
                  {{"name", "devices"}, {"ok", false}, {"detail", "vfio-pci cannot move"}}}},
                {"estimate",
                 {{"bytes", 805306368},
                  {"memory_bytes", 536870912},
                  {"disk_bytes", 268435456},
                  {"disk_there_bytes", 1048576},
                  {"total_s", 11.25},
                  {"rtt_ms", 40.2}}}});
  other.start();
  const auto ran = run_cli(other.socket(), {"migrate", "web", "--to", "west", "--dry-run"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_EQ(ran.out,
            "CHECK    RESULT   DETAIL\n"
            "memory   ok       2 GiB free\n"
            "devices  REFUSED  vfio-pci cannot move\n"
            "\n"
            "estimate: at most 768 MiB (512 MiB of memory, 256 MiB of disks, 1 MiB to compare are "
            "there), 11.2 s at that bandwidth, round trip 40 ms\n"
            "this move would be refused\n");
}

TEST_F(FollowTest, CtrlCAbortsTheMoveAndSaysHowToDetach) {
  states({"copying", "copying", "aborted"});
  agent.events("/v1/migrations/m1/events", {{"progress", progress("copying", 1)}}, true);
  agent.answer("POST /v1/migrations/m1/abort", migration("aborting"));
  // The first stream is left open by the interruption, the second one sees the end.
  agent.when("GET /v1/migrations/m1/events", [this, streams = 0]() mutable {
    if (++streams == 2) agent.push("done", json::object());
  });
  agent.start();
  // Blocked in every thread: only the tool's own descriptor sees it.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  // Sent once the tool listens, that is, after it has prepared for it.
  std::thread user([this] {
    while (count("GET /v1/migrations/m1/events") == 0) std::this_thread::yield();
    ::kill(::getpid(), SIGINT);
  });
  const auto ran = run_cli(agent.socket(), {"migrate", "web", "--to", "west"});
  user.join();
  EXPECT_EQ(ran.status, 4) << ran.err;
  EXPECT_EQ(count("POST /v1/migrations/m1/abort"), 1);
  EXPECT_NE(ran.err.find("aborting the move"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("--detach"), std::string::npos) << ran.err;
  EXPECT_NE(ran.err.find("vm web goes on at east"), std::string::npos) << ran.out;
}

TEST_F(FollowTest, AnAgentThatDropsTheStreamIsAskedAgain) {
  states({"copying", "switching", "done"});
  agent.events("/v1/migrations/m1/events", {{"progress", progress("copying", 1)}});
  const auto ran = godwit({"migration", "watch", "m1"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(count("GET /v1/migrations/m1/events"), 2);
}

TEST_F(FollowTest, WaitGivesUpAfterItsTimeout) {
  states({"copying"});
  agent.events("/v1/migrations/m1/events", {}, true);
  const auto ran = godwit({"migration", "wait", "m1", "--timeout", "50ms"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_NE(ran.err.find("goes on"), std::string::npos) << ran.err;
}

TEST_F(FollowTest, AnUnknownMigrationFails) {
  EXPECT_EQ(godwit({"migration", "wait", "nosuch"}).status, 1);
}

TEST_F(FollowTest, SettingsAndDecisionsAreSent) {
  agent.answer("POST /v1/migrations/m1/set", json::object());
  agent.answer("POST /v1/migrations/m1/cutover", json::object());
  agent.answer("POST /v1/migrations/m1/resolve", json::object());
  agent.answer("GET /v1/migrations/m1", migration("aborted"));
  agent.answer("POST /v1/migrations/m2/resolve", json::object());
  agent.answer("GET /v1/migrations/m2", migration("done"));
  agent.start();
  const auto run = [&](std::vector<std::string> arguments) {
    return run_cli(agent.socket(), std::move(arguments)).status;
  };
  EXPECT_EQ(run({"migration", "set", "m1", "--bandwidth", "1gbit"}), 0);
  EXPECT_EQ(run({"migration", "cutover", "m1"}), 0);
  EXPECT_EQ(run({"migration", "resolve", "m1", "--target-destroyed"}), 0);
  EXPECT_EQ(agent.body_of("POST /v1/migrations/m1/set"), json({{"bandwidth", "1gbit"}}));
  EXPECT_EQ(agent.body_of("POST /v1/migrations/m1/resolve"), json({{"target_destroyed", true}}));
  EXPECT_EQ(run({"migration", "resolve", "m2", "--source-destroyed"}), 0);
  EXPECT_EQ(agent.body_of("POST /v1/migrations/m2/resolve"), json({{"source_destroyed", true}}));
  EXPECT_EQ(run({"migration", "resolve", "m2", "--source-destroyed", "--target-destroyed"}), 2);
}

}  // namespace
}  // namespace godwit::cli

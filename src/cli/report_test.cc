#include "cli/report.hh"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/table.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;

json moved() {
  return {{"id", "m1"},
          {"vm", "web"},
          {"from", "east"},
          {"to", "west"},
          {"state", "done"},
          {"report",
           {{"preparation_ms", 1204.26},
            {"rounds",
             {{{"round", 1}, {"bytes", 536870912}, {"ms", 11500.04}},
              {{"round", 2}, {"bytes", 4299161}, {"ms", 93.25}}}},
            {"total_ms", 13014.5},
            {"pause_ms", 212.4},
            {"pause",
             {{"final_memory_ms", 120.1},
              {"device_state_ms", 10.04},
              {"network_ms", 40.0},
              {"commit_ms", 41.16},
              {"resume_ms", 1.1}}},
            {"encodings",
             {{{"name", "zero"}, {"pages", 9}, {"bytes", 81}, {"encoded_bytes", 3}},
              {{"name", "delta"}, {"pages", 0}, {"bytes", 0}, {"encoded_bytes", 0}},
              {{"name", "zstd"}, {"pages", 0}, {"bytes", 536870912}, {"encoded_bytes", 4299161}}}},
            {"bytes", {{"memory_stream", 541170073}, {"wan", 552600000}}},
            {"held", {{"frames", 12}, {"dropped", 0}}},
            {"cpu_s", {{"source", 3.214}, {"target", 2.1}}}}}};
}

TEST(Report, ReadsAsExpected) {
  EXPECT_EQ(migration_text(moved()),
            R"(vm web moved from east to west  (migration m1)

  preparation              1204.3 ms
  round 1                 11500.0 ms    512 MiB
  round 2                    93.3 ms   4.10 MiB
  pause                     212.4 ms  (below)
  between these               4.5 ms
  ----------------------------------
  total                   13014.5 ms

  final memory              120.1 ms
  device state               10.0 ms
  network                    40.0 ms
  commit                     41.2 ms
  resume                      1.1 ms
  ----------------------------------
  pause                     212.4 ms

  sent      516 MiB of memory stream, 527 MiB over the WAN
  encoded   zero 81 B -> 3 B, zstd 512 MiB -> 4.10 MiB
  held      12 frames during the pause, 0 dropped
  CPU       3.21 s at the source, 2.10 s at the target
)");
}

TEST(Report, NamesTheHooksBesideTheSums) {
  json migration = moved();
  migration["hooks"] = {{"pre_pause", {{"ms", 412.04}, {"ran", 1}}},
                        {"post_resume", {{"ms", 3.0}, {"ran", 2}, {"failure", "hook b: exit 3"}}}};
  EXPECT_TRUE(migration_text(migration).ends_with(
      "  CPU       3.21 s at the source, 2.10 s at the target\n"
      "  hooks     pre-pause 412.0 ms\n"
      "  hooks     post-resume 3.0 ms, failed: hook b: exit 3\n"));
  migration["clock"] = {{"behind_ms", 151.3}, {"corrected", true}, {"left_ms", -0.42}};
  EXPECT_TRUE(migration_text(migration).ends_with(
      "  clock     was behind by 151.3 ms, corrected: -0.4 ms are left\n"));
  migration["clock"] = {{"behind_ms", 151.3}, {"corrected", false}, {"why", "no agent"}};
  EXPECT_TRUE(migration_text(migration).ends_with("  clock     behind by 151.3 ms: no agent\n"));
}

TEST(Report, AGroupIsATable) {
  const json group = {
      {"id", "g1"},
      {"from", "east"},
      {"to", "west"},
      {"state", "partial"},
      {"spread_ms", 120},
      {"members",
       {{{"id", "m1"},
         {"vm", "web"},
         {"state", "draining"},
         {"report", {{"total_ms", 9000.0}, {"pause_ms", 80.0}, {"bytes", {{"wan", 1 << 20}}}}}},
        {{"id", "m2"}, {"vm", "db"}, {"state", "aborted"}, {"reason", "QEMU ended"}}}}};
  EXPECT_EQ(migration_text(group),
            "2 vms from east to west: only some moved, 120.0 ms between the first and the last "
            "hand-over  (migration g1)\n\n"
            "VM   STATE         TOTAL    PAUSE  OVER THE WAN  MIGRATION  REASON\n"
            "web  draining  9000.0 ms  80.0 ms         1 MiB  m1         -\n"
            "db   aborted           -        -             -  m2         QEMU ended\n");
}

TEST(Report, SaysHowThePauseWasPredicted) {
  json migration = moved();
  migration["report"]["prediction"] = {{"pause_ms", 204.0}, {"error_ms", 8.4}};
  EXPECT_NE(migration_text(migration).find(
                "  pause                     212.4 ms\n"
                "  predicted 204.0 ms as the guest was stopped: it took 8.4 ms more\n"),
            std::string::npos);
  migration["report"]["prediction"]["error_ms"] = -1.0;
  EXPECT_NE(migration_text(migration).find("it took 1.0 ms less\n"), std::string::npos);
}

// Adds up the printed times of each group and compares with the line under its rule.
TEST(Report, WhatIsPrintedAddsUpWhateverTheRounding) {
  for (const double total : {13010.0, 13011.37, 99999.99, 13009.96}) {
    json migration = moved();
    migration["report"]["total_ms"] = total;
    migration["report"]["pause_ms"] = total / 61.25;
    std::istringstream lines(migration_text(migration));
    std::string line;
    long long sum = 0;
    int groups = 0;
    bool closing = false;
    while (std::getline(lines, line)) {
      if (line.find("-----") != std::string::npos) {
        closing = true;
        continue;
      }
      if (line.size() < 36 || line.find(" ms") == std::string::npos) continue;
      const long long tenths = std::llround(std::stod(line.substr(24, 12)) * 10);
      if (closing) {
        EXPECT_EQ(sum, tenths) << migration_text(migration);
        closing = false;
        sum = 0;
        ++groups;
      } else {
        sum += tenths;
      }
    }
    EXPECT_EQ(groups, 2);
  }
}

TEST(Report, OutcomesSayWhatIsTrueNow) {
  json migration = {{"id", "m1"}, {"vm", "web"}, {"from", "east"}, {"to", "west"}};
  migration["state"] = "aborted";
  migration["reason"] = "the WAN is down";
  EXPECT_EQ(migration_text(migration),
            "move aborted: vm web goes on at east\n  because the WAN is down  (migration m1)\n");
  migration["state"] = "undecided";
  EXPECT_NE(migration_text(migration).find("godwit migration resolve m1"), std::string::npos);
  migration["state"] = "stuck";
  EXPECT_EQ(migration_text(migration),
            "stuck: vm web stays at east, and whether it runs is not known\n"
            "  because the WAN is down  (migration m1)\n");
}

TEST(Report, ReportsOfAnotherVersionDoNotBreakIt) {
  for (const json& report : {json::object(), json{{"rounds", json::array()}}, json(nullptr)}) {
    json migration = moved();
    migration["report"] = report;
    EXPECT_TRUE(migration_text(migration).starts_with("vm web moved"));
  }
}

TEST(Table, CellsOfEveryKind) {
  const json object = {
      {"text", "x"}, {"empty", ""}, {"null", nullptr}, {"number", 7}, {"size", 1536}};
  EXPECT_EQ(text_of(object, "text"), "x");
  EXPECT_EQ(text_of(object, "empty"), "-");
  EXPECT_EQ(text_of(object, "null"), "-");
  EXPECT_EQ(text_of(object, "missing"), "-");
  EXPECT_EQ(text_of(object, "number"), "7");
  EXPECT_EQ(bytes_of(object, "size"), "1.50 KiB");
  EXPECT_EQ(ms_of(object, "missing"), "-");
}

}  // namespace
}  // namespace godwit::cli

#include "migrate/report.hh"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::migrate {
namespace {

Instant at(int ms) { return Instant(milliseconds(ms)); }

TEST(Report, PartsAddUp) {
  Report report;
  fill_times(report, {.begun = at(1000),
                      .copying = at(1500),
                      .stopped = at(4000),
                      .pre_switchover = at(4001),
                      .ports_paused = at(4002),
                      .memory_ended = at(4080),
                      .completed = at(4140),
                      .owned = at(4200),
                      .resume_at_target = milliseconds(3),
                      .runs_at_target = milliseconds(10),
                      .rtt = milliseconds(40)});
  EXPECT_EQ(report.pause, milliseconds(170));
  EXPECT_EQ(
      report.network + report.final_memory + report.device_state + report.commit + report.resume,
      report.pause);
  EXPECT_EQ(report.preparation + report.copying + report.pause, report.total);
  EXPECT_EQ(report.commit, milliseconds(27));
  EXPECT_EQ(report.network, milliseconds(1));
}

TEST(Report, MissingMarksDoNotBreakTheSum) {
  Report report;
  fill_times(report, {.begun = at(0),
                      .copying = at(1),
                      .stopped = at(10),
                      .pre_switchover = {},
                      .ports_paused = at(11),
                      .memory_ended = {},
                      .completed = at(20),
                      .owned = at(21),
                      .resume_at_target = milliseconds(50),
                      .rtt = milliseconds(40)});
  EXPECT_EQ(
      report.network + report.final_memory + report.device_state + report.commit + report.resume,
      report.pause);
}

TEST(Report, ThePredictionHasItsError) {
  Report report;
  report.pause = milliseconds(180);
  EXPECT_FALSE(to_json(report).contains("prediction"));
  report.predicted_pause = milliseconds(200);
  EXPECT_EQ(to_json(report)["prediction"],
            (nlohmann::json{{"pause_ms", 200.0}, {"error_ms", -20.0}}));
}

}  // namespace
}  // namespace godwit::migrate

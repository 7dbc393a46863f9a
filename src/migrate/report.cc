#include "migrate/report.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::migrate {
namespace {

// A target that says more does not mean it.
constexpr Nanoseconds kMostRunning = std::chrono::hours(1);

}  // namespace

void fill_times(Report& report, const Milestones& at) {
  const Nanoseconds zero{};
  const auto between = [&](Instant from, Instant to) { return std::max(zero, to - from); };
  const bool has_disks = at.disks_settled != Instant{};
  const Instant settled = has_disks ? std::max(at.disks_settled, at.ports_paused) : at.ports_paused;
  const Instant memory_ended =
      std::clamp(at.memory_ended, settled, std::max(settled, at.completed));
  const Instant pre_switchover = std::clamp(at.pre_switchover, at.stopped, at.ports_paused);
  const Nanoseconds running_for = std::clamp(at.runs_at_target, zero, kMostRunning);
  const Instant running = std::max(at.completed, at.owned - at.rtt / 2 - running_for);

  report.preparation = between(at.begun, has_disks ? at.disks : at.copying);
  if (has_disks) {
    DiskReport& disks = report.disks ? *report.disks : report.disks.emplace();
    disks.copying = between(at.disks, at.copying);
    disks.settling = between(at.ports_paused, settled);
  }
  report.copying = between(at.copying, at.stopped);
  report.pause = between(at.stopped, running);
  report.total = between(at.begun, running);
  report.network = between(pre_switchover, at.ports_paused);
  report.final_memory = between(at.stopped, pre_switchover) + between(settled, memory_ended);
  report.device_state = between(memory_ended, at.completed);
  report.resume = std::min(at.resume_at_target, between(at.completed, running));
  report.commit = between(at.completed, running) - report.resume;
}

nlohmann::json to_json(const std::vector<EncodingUse>& encodings) {
  nlohmann::json all = nlohmann::json::array();
  for (const EncodingUse& use : encodings) {
    all.push_back({{"name", use.name},
                   {"pages", use.pages},
                   {"bytes", use.bytes},
                   {"encoded_bytes", use.encoded_bytes}});
  }
  return all;
}

nlohmann::json to_json(const Report& report) {
  nlohmann::json rounds = nlohmann::json::array();
  for (const Round& round : report.rounds) {
    rounds.push_back(
        {{"round", round.round}, {"bytes", round.bytes}, {"ms", to_ms(round.duration)}});
  }
  nlohmann::json json = {
      {"preparation_ms", to_ms(report.preparation)},
      {"copying_ms", to_ms(report.copying)},
      {"pause_ms", to_ms(report.pause)},
      {"total_ms", to_ms(report.total)},
      {"rounds", rounds},
      {"encodings", to_json(report.encodings)},
      {"pause",
       {{"network_ms", to_ms(report.network)},
        {"final_memory_ms", to_ms(report.final_memory)},
        {"device_state_ms", to_ms(report.device_state)},
        {"commit_ms", to_ms(report.commit)},
        {"resume_ms", to_ms(report.resume)}}},
      {"bytes", {{"memory_stream", report.memory_bytes}, {"wan", report.wan_bytes}}},
      {"held", {{"frames", report.held_frames}, {"dropped", report.held_dropped}}},
      {"cpu_s", {{"source", report.source_cpu_seconds}, {"target", report.target_cpu_seconds}}}};
  if (report.disks) {
    json["pause"]["disks_ms"] = to_ms(report.disks->settling);
    json["disks"] = {{"total_bytes", report.disks->total_bytes},
                     {"sent_bytes", report.disks->sent_bytes},
                     {"same_bytes", report.disks->same_bytes},
                     {"elsewhere_bytes", report.disks->elsewhere_bytes},
                     {"copy_s", to_ms(report.disks->copying) / 1e3},
                     {"settle_ms", to_ms(report.disks->settling)},
                     {"mean_write_ms", to_ms(report.disks->mean_write)},
                     {"slowest_write_ms", to_ms(report.disks->slowest_write)},
                     {"usual_write_ms", to_ms(report.disks->usual_write)}};
  }
  if (report.memory_followed) json["memory_followed_ms"] = to_ms(*report.memory_followed);
  if (report.predicted_pause) {
    json["prediction"] = {{"pause_ms", to_ms(*report.predicted_pause)},
                          {"error_ms", to_ms(report.pause - *report.predicted_pause)}};
  }
  return json;
}

}  // namespace godwit::migrate

#include "qemu/commands.hh"

#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr std::array<std::pair<std::string_view, MigrationStatus>, 14> kStatusNames{{
    {"none", MigrationStatus::none},
    {"setup", MigrationStatus::setup},
    {"active", MigrationStatus::active},
    {"device", MigrationStatus::device},
    {"pre-switchover", MigrationStatus::pre_switchover},
    {"postcopy-active", MigrationStatus::postcopy_active},
    {"postcopy-paused", MigrationStatus::postcopy_paused},
    {"postcopy-recover", MigrationStatus::postcopy_recover},
    {"wait-unplug", MigrationStatus::wait_unplug},
    {"colo", MigrationStatus::colo},
    {"completed", MigrationStatus::completed},
    {"failed", MigrationStatus::failed},
    {"cancelling", MigrationStatus::cancelling},
    {"cancelled", MigrationStatus::cancelled},
}};

// Of commands whose "return" is empty.
Qmp::Reply reply_to(Done done) {
  return [done = std::move(done)](Result<json> reply) mutable {
    if (!done) return;
    if (reply) {
      done({});
    } else {
      done(std::unexpected(reply.error()));
    }
  };
}

void run(Qmp& qmp, std::string_view command, json arguments, Done done) {
  qmp.execute(command, std::move(arguments), reply_to(std::move(done)));
}

}  // namespace

MigrationStatus parse_migration_status(std::string_view name) {
  for (const auto& [text, status] : kStatusNames) {
    if (text == name) return status;
  }
  return MigrationStatus::unknown;
}

std::string_view to_text(MigrationStatus status) {
  for (const auto& [text, value] : kStatusNames) {
    if (value == status) return text;
  }
  return "unknown";
}

MigrationInfo migration_info(const json& reply) {
  const json& ram = member(reply, "ram");
  const std::string status = text_at(reply, "status");
  return {
      // QEMU leaves the status out before the first migration.
      .status = status.empty() ? MigrationStatus::none : parse_migration_status(status),
      .error = text_at(reply, "error-desc"),
      .transferred_bytes = unsigned_at(ram, "transferred"),
      .remaining_bytes = unsigned_at(ram, "remaining"),
      .total_bytes = unsigned_at(ram, "total"),
      .normal_bytes = unsigned_at(ram, "normal-bytes"),
      .zero_pages = unsigned_at(ram, "duplicate"),
      .page_bytes = unsigned_at(ram, "page-size"),
      .dirty_sync_count = unsigned_at(ram, "dirty-sync-count"),
      .dirty_pages_per_second = unsigned_at(ram, "dirty-pages-rate"),
      .throttle_percent = unsigned_at(reply, "cpu-throttle-percentage"),
      .total_time = milliseconds(unsigned_at(reply, "total-time")),
      .setup_time = milliseconds(unsigned_at(reply, "setup-time")),
      .downtime = milliseconds(unsigned_at(reply, "downtime")),
      .expected_downtime = milliseconds(unsigned_at(reply, "expected-downtime")),
  };
}

void query_status(Qmp& qmp, Answer<VmStatus> answer) {
  qmp.execute("query-status", nullptr, [answer = std::move(answer)](Result<json> reply) mutable {
    if (!reply) return answer(std::unexpected(reply.error()));
    answer(VmStatus{.running = flag_at(*reply, "running"), .state = text_at(*reply, "status")});
  });
}

void query_migrate(Qmp& qmp, Answer<MigrationInfo> answer) {
  qmp.execute("query-migrate", nullptr, [answer = std::move(answer)](Result<json> reply) mutable {
    if (!reply) return answer(std::unexpected(reply.error()));
    answer(migration_info(*reply));
  });
}

void query_mean_write(Qmp& qmp, Answer<Nanoseconds> answer) {
  qmp.execute("query-blockstats", nullptr,
              [answer = std::move(answer)](Result<json> reply) mutable {
                if (!reply) return answer(std::unexpected(reply.error()));
                std::uint64_t took = 0, writes = 0;  // ns
                for (const json& disk : *reply) {
                  took += unsigned_at(member(disk, "stats"), "wr_total_time_ns");
                  writes += unsigned_at(member(disk, "stats"), "wr_operations");
                }
                answer(Nanoseconds(writes == 0 ? 0 : took / writes));
              });
}

void set_migration_capabilities(Qmp& qmp, const MigrationCapabilities& on, Done done) {
  json list = json::array();
  const auto add = [&list](const char* name, bool state) {
    list.push_back({{"capability", name}, {"state", state}});
  };
  add("events", on.events);
  add("return-path", on.return_path);
  add("pause-before-switchover", on.pause_before_switchover);
  add("late-block-activate", on.late_block_activate);
  add("auto-converge", on.auto_converge);
  add("postcopy-ram", on.postcopy_ram);
  run(qmp, "migrate-set-capabilities", {{"capabilities", std::move(list)}}, std::move(done));
}

void set_downtime_limit(Qmp& qmp, milliseconds limit, Done done) {
  run(qmp, "migrate-set-parameters", {{"downtime-limit", limit.count()}}, std::move(done));
}

void set_migration_bandwidth(Qmp& qmp, ByteCount per_second, Done done) {
  run(qmp, "migrate-set-parameters", {{"max-bandwidth", per_second.bytes}}, std::move(done));
}

void set_postcopy_bandwidth(Qmp& qmp, ByteCount per_second, Done done) {
  run(qmp, "migrate-set-parameters", {{"max-postcopy-bandwidth", per_second.bytes}},
      std::move(done));
}

void set_throttle_trigger(Qmp& qmp, unsigned percent, Done done) {
  run(qmp, "migrate-set-parameters", {{"throttle-trigger-threshold", percent}}, std::move(done));
}

void set_announce_rounds(Qmp& qmp, unsigned rounds, Done done) {
  run(qmp, "migrate-set-parameters", {{"announce-rounds", rounds}}, std::move(done));
}

void migrate(Qmp& qmp, const std::string& uri, Done done) {
  run(qmp, "migrate", {{"uri", uri}}, std::move(done));
}

void migrate_incoming(Qmp& qmp, const std::string& uri, Done done) {
  run(qmp, "migrate-incoming", {{"uri", uri}}, std::move(done));
}

void migrate_continue(Qmp& qmp, Done done) {
  run(qmp, "migrate-continue", {{"state", "pre-switchover"}}, std::move(done));
}

void migrate_continue_cancelled(Qmp& qmp, Done done) {
  run(qmp, "migrate-continue", {{"state", "cancelling"}}, std::move(done));
}

void migrate_start_postcopy(Qmp& qmp, Done done) {
  run(qmp, "migrate-start-postcopy", nullptr, std::move(done));
}

void migrate_pause(Qmp& qmp, Done done) { run(qmp, "migrate-pause", nullptr, std::move(done)); }

void migrate_recover(Qmp& qmp, const std::string& uri, Done done) {
  qmp.execute_out_of_band("migrate-recover", {{"uri", uri}}, reply_to(std::move(done)));
}

void migrate_resume(Qmp& qmp, const std::string& uri, Done done) {
  run(qmp, "migrate", {{"uri", uri}, {"resume", true}}, std::move(done));
}

void migrate_cancel(Qmp& qmp, Done done) { run(qmp, "migrate_cancel", nullptr, std::move(done)); }
void close_descriptor(Qmp& qmp, std::string_view name, Done done) {
  run(qmp, "closefd", {{"fdname", name}}, std::move(done));
}

void cont(Qmp& qmp, Done done) { run(qmp, "cont", nullptr, std::move(done)); }
void stop(Qmp& qmp, Done done) { run(qmp, "stop", nullptr, std::move(done)); }
void quit(Qmp& qmp, Done done) { run(qmp, "quit", nullptr, std::move(done)); }
void system_powerdown(Qmp& qmp, Done done) {
  run(qmp, "system_powerdown", nullptr, std::move(done));
}

}  // namespace godwit::qemu

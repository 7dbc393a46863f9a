#include "agent/move_options.hh"

#include <nlohmann/json.hpp>

#include "base/utc_text.hh"
#include "stream/transfer_frame.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kMaxMaxDowntime = seconds(2000);  // QEMU's own bound

Result<Nanoseconds> max_downtime_field(const nlohmann::json& request) {
  const auto text = text_field(request, "max_downtime");
  if (!text) return std::unexpected(text.error());
  auto limit = parse_duration(*text);
  if (limit && *limit > kMaxMaxDowntime) return fail("max_downtime is at most 2000s");
  return limit;
}

Result<migrate::OnDiverge> on_diverge_field(const nlohmann::json& request) {
  const auto text = text_field(request, "on_diverge");
  if (!text) return std::unexpected(text.error());
  const auto on_diverge = migrate::on_diverge(*text);
  if (on_diverge) return *on_diverge;
  return fail("on_diverge is 'abort', 'pause', 'throttle' or 'postcopy', not '{}'", *text);
}

Result<migrate::StopPolicy> stop_policy_field(const nlohmann::json& request) {
  const auto text = text_field(request, "stop_policy");
  if (!text) return std::unexpected(text.error());
  const auto policy = migrate::stop_policy(*text);
  if (!policy) return fail("stop_policy is 'downtime', 'smart' or 'stock', not '{}'", *text);
  return *policy;
}

Result<bool> on_restart_field(const nlohmann::json& request) {
  const auto text = text_field(request, "on_restart");
  if (!text) return std::unexpected(text.error());
  if (*text == "resume" || *text == "abort") return *text == "resume";
  return fail("on_restart is 'resume' or 'abort', not '{}'", *text);
}

Result<Strategy> strategy_field(const nlohmann::json& request) {
  const auto text = text_field(request, "strategy");
  if (!text) return std::unexpected(text.error());
  if (const auto known = strategy(*text)) return *known;
  return fail("strategy is 'nat', 'endpoint', 'secondary-nic', 'wire' or 'auto', not '{}'", *text);
}

Result<Nanoseconds> relay_limit_field(const nlohmann::json& request) {
  const auto text = text_field(request, "relay_for");
  if (!text) return std::unexpected(text.error());
  auto limit = parse_duration(*text);
  if (limit && (*limit < seconds(0) || *limit > kMostRelayLimit)) {
    return fail("relay_for is at most {}", to_text(kMostRelayLimit));
  }
  return limit;
}

Result<ByteCount> cache_field(const nlohmann::json& request) {
  auto cache = parse_byte_count(text_field_or(request, "cache", ""));
  if (cache && *cache > kMaxCache) return fail("cache is at most {}", to_text(kMaxCache));
  return cache;
}

Result<disk::Mode> disk_mode_field(const nlohmann::json& request) {
  return disk::parse_mode(text_field_or(request, "disk_mode", ""));
}

Result<Nanoseconds> max_write_latency_field(const nlohmann::json& request) {
  const auto text = text_field(request, "max_write_latency");
  if (!text) return std::unexpected(text.error());
  return parse_duration(*text);
}

Result<std::uint8_t> lanes_field(const nlohmann::json& request) {
  const auto& given = request.at("lanes");
  if (given.is_number_unsigned() && given >= 1 && given <= stream::kMaxLanes) {
    return given.get<std::uint8_t>();
  }
  return fail("'lanes' is a number from 1 to {}", stream::kMaxLanes);
}

// Into `value`, if the request has the field.
template <class T>
Result<> read(const nlohmann::json& request, const char* key,
              Result<T> (*field)(const nlohmann::json&), T& value) {
  if (!request.contains(key)) return {};
  auto given = field(request);
  if (!given) return std::unexpected(given.error());
  value = *std::move(given);
  return {};
}

Result<> read_flag(const nlohmann::json& request, const char* key, bool& value) {
  const auto given = flag_field(request, key, value);
  if (!given) return std::unexpected(given.error());
  value = *given;
  return {};
}

Result<BitRate> bandwidth_field(const nlohmann::json& request) {
  return parse_bit_rate(text_field_or(request, "bandwidth", ""));
}

}  // namespace

Result<> read_options(const nlohmann::json& request, SourceRecord& record) {
  BitRate bandwidth;
  for (auto done :
       {read(request, "max_downtime", max_downtime_field, record.max_downtime),
        read(request, "bandwidth", bandwidth_field, bandwidth),
        read(request, "on_diverge", on_diverge_field, record.on_diverge),
        read(request, "stop_policy", stop_policy_field, record.stop_policy),
        read(request, "on_restart", on_restart_field, record.resume),
        read(request, "strategy", strategy_field, record.strategy),
        read(request, "relay_for", relay_limit_field, record.relay_limit),
        read(request, "cache", cache_field, record.cache), read_flag(request, "hold", record.hold),
        read_flag(request, "background", record.background),
        read(request, "lanes", lanes_field, record.lanes),
        read(request, "disk_mode", disk_mode_field, record.disk_mode),
        read(request, "max_write_latency", max_write_latency_field, record.max_write_latency),
        read_flag(request, "delete_source", record.delete_source),
        read_flag(request, "compact", record.compact), read_flag(request, "known", record.known)}) {
    if (!done) return done;
  }
  record.bandwidth_bits_per_second = bandwidth.bits_per_second;
  return {};
}

Result<std::int64_t> start_time(const nlohmann::json& request) {
  if (!request.contains("at")) return 0;
  const auto text = text_field(request, "at");
  if (!text) return std::unexpected(text.error());
  const auto time = parse_utc(*text);
  if (!time) return fail("'at' is a UTC time like 2026-11-21T22:30:00Z");
  return *time;
}

Result<MoveChanges> read_changes(const nlohmann::json& request) {
  MoveChanges changes;
  if (request.contains("max_downtime")) {
    const auto value = max_downtime_field(request);
    if (!value) return std::unexpected(value.error());
    changes.max_downtime = *value;
  }
  if (request.contains("bandwidth")) {
    const auto value = bandwidth_field(request);
    if (!value) return std::unexpected(value.error());
    changes.bandwidth = *value;
  }
  if (request.contains("on_diverge")) {
    const auto value = on_diverge_field(request);
    if (!value) return std::unexpected(value.error());
    changes.on_diverge = *value;
  }
  return changes;
}

}  // namespace godwit::agent

#include "agent/source_record.hh"

#include <algorithm>
#include <bit>
#include <thread>

#include "migrate/group.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

// The others are for the vms, which run while one of them is encoded.
constexpr int kCpusPerWindow = 2;

}  // namespace

nlohmann::json to_json(const std::optional<GroupPlace>& place) {
  if (!place) return nullptr;
  return {{"id", place->id.text()}, {"index", place->index},
          {"of", place->of},        {"in_order", place->in_order},
          {"hold", place->hold},    {"bandwidth_bps", place->cap.bits_per_second}};
}

std::optional<GroupPlace> group_place(const nlohmann::json& json) {
  if (!json.is_object()) return std::nullopt;
  const auto id = id_field<MigrationId>(json, "id");
  if (!id) return std::nullopt;
  GroupPlace place{.id = *id,
                   .index = json.value("index", std::size_t{0}),
                   .of = json.value("of", std::size_t{0}),
                   .in_order = json.value("in_order", false),
                   .hold = json.value("hold", false),
                   .cap = {json.value("bandwidth_bps", std::uint64_t{0})}};
  if (place.of > migrate::kMostMembers || place.index >= place.of) return std::nullopt;
  return place;
}

bool waits(const SourceRecord& record, std::int64_t now) {
  return record.state == migrate::SourceState::planned && record.begins_at > now;
}

// A group's members begin one after the other: one may be planned while others are copied.
bool may_go_on(const SourceRecord& record) {
  using enum migrate::SourceState;
  const bool is_early = record.state == planned || record.state == preparing ||
                        record.state == copying || record.state == ready;
  return record.resume && is_early && record.times_resumed < kMostResumed;
}

bool goes_on(const SourceRecord& record) { return record.broken_off && record.resumed_as.empty(); }

bool goes_postcopy(const SourceRecord& record) {
  return record.on_diverge == migrate::OnDiverge::postcopy;
}

bool pauses(const SourceRecord& record) {
  return record.on_diverge == migrate::OnDiverge::pause || goes_postcopy(record);
}

nlohmann::json to_json(const SourceRecord& record) {
  nlohmann::json ports = nlohmann::json::array();
  for (const PortId& port : record.ports) ports.push_back(port.text());
  nlohmann::json uplinks = nlohmann::json::array();
  for (const PortId& port : record.uplinks) uplinks.push_back(port.text());
  return {{"id", record.id.text()},
          {"vm", record.vm},
          {"tenant", record.tenant},
          {"to", record.to},
          {"state", migrate::to_text(record.state)},
          {"reason", record.reason},
          {"started", record.started},
          {"begins_at", record.begins_at},
          {"by", record.by},
          {"max_downtime_ns", record.max_downtime.count()},
          {"stop_policy", migrate::to_text(record.stop_policy)},
          {"bandwidth_bps", record.bandwidth_bits_per_second},
          {"hold", record.hold},
          {"background", record.background},
          {"lanes", record.lanes},
          {"disk_mode", disk::to_text(record.disk_mode)},
          {"max_write_latency_ns", record.max_write_latency.count()},
          {"delete_source", record.delete_source},
          {"shared_disks", record.shared_disks},
          {"compact", record.compact},
          {"known", record.known},
          {"cache_bytes", record.cache.bytes},
          {"on_diverge", migrate::to_text(record.on_diverge)},
          {"resume", record.resume},
          {"broken_off", record.broken_off},
          {"resumes", record.resumes},
          {"resumed_as", record.resumed_as},
          {"times_resumed", record.times_resumed},
          {"given_up", record.given_up},
          {"group", to_json(record.group)},
          {"handed_over_ms", record.handed_over_ms},
          {"epoch", record.epoch},
          {"ports", ports},
          {"strategy", to_text(record.strategy)},
          {"relay_limit_ns", record.relay_limit.count()},
          {"uplinks", uplinks},
          {"network", record.network},
          {"second_nic", record.second_nic.text()},
          {"flip", record.flip},
          {"pid", record.process.pid},
          {"start_time", record.process.start_time},
          {"component", record.component.text()},
          {"abort_told", record.abort_told},
          {"memory_follows", record.memory_follows},
          {"report", record.report},
          {"clock", record.clock},
          {"hooks", record.hooks}};
}

std::string_view to_text(Strategy strategy) {
  switch (strategy) {
    case Strategy::automatic:
      return "auto";
    case Strategy::wire:
      return "wire";
    case Strategy::nat:
      return "nat";
    case Strategy::endpoint:
      return "endpoint";
    case Strategy::secondary_nic:
      return "secondary-nic";
  }
  return "?";
}

std::optional<Strategy> strategy(std::string_view text) {
  for (const Strategy each : {Strategy::automatic, Strategy::wire, Strategy::nat,
                              Strategy::endpoint, Strategy::secondary_nic}) {
    if (text == to_text(each)) return each;
  }
  return std::nullopt;
}

bool leaves_address(Strategy strategy) {
  return strategy == Strategy::endpoint || strategy == Strategy::secondary_nic;
}

nlohmann::json to_json(const Leading& leading) {
  return {{"strategy", to_text(leading.strategy)},
          {"relay_s", duration_cast<seconds>(leading.relay_limit).count()}};
}

Leading leading_of(const nlohmann::json& json) {
  Leading leading;
  const auto given = json.find("leading");
  if (given == json.end() || !given->is_object()) return leading;
  leading.strategy = strategy(text_field_or(*given, "strategy", "")).value_or(Strategy::nat);
  const auto limit = given->find("relay_s");
  if (limit != given->end() && limit->is_number_unsigned()) {
    const auto most = static_cast<std::uint64_t>(duration_cast<seconds>(kMostRelayLimit).count());
    leading.relay_limit = seconds(std::min(limit->get<std::uint64_t>(), most));
  }
  return leading;
}

Leading leading_of(const SourceRecord& record) {
  return {.strategy = leaves_address(record.strategy) ? Strategy::endpoint : Strategy::nat,
          .relay_limit = record.relay_limit};
}

std::string spoken_name(const SourceRecord& record) {
  return record.component.is_zero() ? "vm " + record.vm : record.vm;
}

nlohmann::json describe(const SourceRecord& record, const std::string& host,
                        const std::string& state) {
  nlohmann::json json = {{"id", record.id.text()},
                         {"vm", record.vm},
                         {"tenant", record.tenant},
                         {"from", host},
                         {"to", record.to},
                         {"state", state},
                         {"started", record.started},
                         {"max_downtime_ms", to_ms(record.max_downtime)},
                         {"by", record.by}};
  if (!record.reason.empty()) json["reason"] = record.reason;
  if (record.group) json["group"] = record.group->id.text();
  if (goes_on(record)) json["goes_on"] = true;
  if (!record.resumes.empty()) json["resumes"] = record.resumes;
  if (!record.resumed_as.empty()) json["resumed_as"] = record.resumed_as;
  if (record.handed_over_ms > 0) json["handed_over_ms"] = record.handed_over_ms;
  if (!record.report.is_null()) json["report"] = record.report;
  if (record.component.is_zero()) json["strategy"] = to_text(record.strategy);
  if (!record.network.is_null()) json["network"] = record.network;
  return json;
}

SourceRecord source_record(const nlohmann::json& json) {
  SourceRecord record;
  const auto id = id_field<MigrationId>(json, "id");
  const auto state = migrate::source_state(json.value("state", ""));
  if (!id || !state) fail_setup("the agent's store holds a damaged migration: {}", json.dump());
  record.id = *id;
  record.state = *state;
  record.vm = json.value("vm", "");
  record.tenant = json.value("tenant", std::string(kDefaultTenant));
  record.to = json.value("to", "");
  record.reason = json.value("reason", "");
  record.started = json.value("started", std::int64_t{0});
  record.begins_at = json.value("begins_at", std::int64_t{0});
  record.by = json.value("by", "");
  record.max_downtime = Nanoseconds(json.value("max_downtime_ns", std::int64_t{300'000'000}));
  record.stop_policy =
      migrate::stop_policy(json.value("stop_policy", "")).value_or(migrate::StopPolicy::downtime);
  record.bandwidth_bits_per_second = json.value("bandwidth_bps", std::uint64_t{0});
  record.hold = json.value("hold", false);
  record.background = json.value("background", false);
  record.lanes = json.value("lanes", std::uint8_t{0});
  record.max_write_latency = Nanoseconds(json.value("max_write_latency_ns", std::int64_t{0}));
  record.delete_source = json.value("delete_source", false);
  record.shared_disks = json.value("shared_disks", false);
  record.disk_mode = disk::parse_mode(json.value("disk_mode", "")).value_or(record.disk_mode);
  record.compact = json.value("compact", true);
  record.known = json.value("known", true);
  record.cache.bytes = json.value("cache_bytes", kDefaultCache.bytes);
  record.on_diverge =
      migrate::on_diverge(json.value("on_diverge", "")).value_or(migrate::OnDiverge::abort);
  record.resume = json.value("resume", false);
  record.broken_off = json.value("broken_off", false);
  record.resumes = json.value("resumes", "");
  record.resumed_as = json.value("resumed_as", "");
  record.times_resumed = json.value("times_resumed", 0U);
  record.given_up = json.value("given_up", false);
  record.group = group_place(json.value("group", nlohmann::json()));
  record.handed_over_ms = json.value("handed_over_ms", std::int64_t{0});
  record.epoch = json.value("epoch", Epoch{0});
  for (const auto& text : json.value("ports", std::vector<std::string>{})) {
    if (const auto port = PortId::parse(text)) record.ports.push_back(*port);
  }
  for (const auto& text : json.value("uplinks", std::vector<std::string>{})) {
    if (const auto port = PortId::parse(text)) record.uplinks.push_back(*port);
  }
  record.strategy = strategy(json.value("strategy", "")).value_or(Strategy::wire);
  record.relay_limit = Nanoseconds(json.value("relay_limit_ns", record.relay_limit.count()));
  record.network = json.value("network", nlohmann::json());
  record.second_nic = PortId::parse(json.value("second_nic", "")).value_or(PortId{});
  record.flip = json.value("flip", nlohmann::json());
  record.process = {.pid = json.value("pid", pid_t{-1}),
                    .start_time = json.value("start_time", std::uint64_t{0})};
  record.component = ComponentId::parse(json.value("component", "")).value_or(ComponentId{});
  record.abort_told = json.value("abort_told", true);
  record.memory_follows = json.value("memory_follows", false);
  record.report = json.value("report", nlohmann::json());
  record.clock = json.value("clock", nlohmann::json());
  record.hooks = json.value("hooks", nlohmann::json());
  return record;
}

nlohmann::json to_json(const std::optional<codec::Settings>& codec) {
  if (!codec) return nullptr;
  return {{"cache", codec->cache},
          {"window_bits", codec->window_bits},
          {"windows", codec->windows},
          {"most_known", codec->most_known}};
}

codec::Settings codec_settings(const SourceRecord& record, unsigned protocol) {
  codec::Settings settings{.cache = record.cache.bytes};
  if (protocol >= kWindowsProtocol && !record.group) {
    const auto cpus = static_cast<int>(std::thread::hardware_concurrency());
    settings.windows = std::clamp(cpus / kCpusPerWindow, 1, codec::kMaxWindows);
  }
  if (record.group) {
    settings.cache /= record.group->of;
    settings.window_bits -= static_cast<int>(std::bit_width(record.group->of - 1));
  }
  return settings;
}

Result<std::optional<codec::Settings>> parse_codec(const nlohmann::json& json) {
  if (json.is_null()) return std::nullopt;
  codec::Settings settings;
  settings.cache = qemu::unsigned_at(json, "cache");
  settings.window_bits = static_cast<int>(qemu::unsigned_at(json, "window_bits"));
  settings.most_known = qemu::unsigned_at(json, "most_known");
  if (json.contains("windows")) {  // not where the source's agent is older
    settings.windows = static_cast<int>(qemu::unsigned_at(json, "windows"));
  }
  if (settings.cache > kMaxCache.bytes || settings.window_bits < codec::kLeastWindowBits ||
      settings.window_bits > codec::kMaxWindowBits || settings.windows < 1 ||
      settings.windows > codec::kMaxWindows) {
    return fail("the source's encoding needs too much memory here: {}", json.dump());
  }
  return settings;
}

nlohmann::json to_json(const std::optional<SharedPlace>& place) {
  if (!place) return nullptr;
  return {
      {"id", place->group.text()}, {"member", place->member}, {"most_pages", place->most_pages}};
}

Result<std::optional<SharedPlace>> parse_shared(const nlohmann::json& json) {
  if (json.is_null()) return std::nullopt;
  const auto group = id_field<MigrationId>(json, "id");
  if (!group) return std::unexpected(group.error());
  const std::uint64_t member = qemu::unsigned_at(json, "member");
  const std::uint64_t most_pages = qemu::unsigned_at(json, "most_pages");
  if (member >= migrate::kMostMembers || most_pages > kMaxCache.bytes / qemu::kPageBytes) {
    return fail("the source's group is larger than it can be: {}", json.dump());
  }
  return SharedPlace{
      .group = *group, .member = static_cast<std::uint32_t>(member), .most_pages = most_pages};
}

}  // namespace godwit::agent

#include "agent/metrics.hh"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace godwit::agent {
namespace {

double to_seconds(Nanoseconds time) { return static_cast<double>(time.count()) / 1e9; }

double open_descriptors() {
  std::error_code error;
  const std::filesystem::directory_iterator all("/proc/self/fd", error);
  return static_cast<double>(std::distance(begin(all), end(all)));
}

double resident_bytes() {
  double pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;  // proc(5)
  return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return of(usage.ru_utime) + of(usage.ru_stime);
}

double number(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}

Exposition::Labels labels_of(const nlohmann::json& wire) {
  return {{"wire", wire.value("id", "")},
          {"tenant", wire.value("tenant", "")},
          {"port", wire.at("a").value("port", "")},
          {"peer_host", wire.at("b").value("host", "")},
          {"peer_port", wire.at("b").value("port", "")}};
}

Exposition::Labels with(Exposition::Labels labels, std::string_view name, std::string value) {
  labels.emplace_back(name, std::move(value));
  return labels;
}

}  // namespace

Metrics::Metrics(Sources sources, Events& events)
    : sources_(sources), started_(sources.loop.now()) {
  events.observe(
      [this](std::string_view name, const nlohmann::json& data) { observe(name, data); });
}

void Metrics::observe(std::string_view name, const nlohmann::json& data) {
  if (name == Events::kMigrationOver) return add_ended(data);
  if (name == "migration" && data.value("target_state", "") == "owner") {
    ++moves_[data.value("tenant", "")].arrived;
  }
}

void Metrics::add_ended(const nlohmann::json& migration) {
  Moves& moves = moves_[migration.value("tenant", "")];
  const bool aborted = migration.value("state", "") == "aborted";
  ++moves.ended[aborted ? "aborted" : "done"];
  const auto report = migration.find("report");
  if (aborted || report == migration.end() || !report->is_object()) return;
  if (report->contains("state_bytes")) return;  // a component's: the rest is of vms
  const auto bytes = report->value("bytes", nlohmann::json::object());
  moves.memory_bytes += bytes.value("memory_stream", std::uint64_t{0});
  moves.wan_bytes += bytes.value("wan", std::uint64_t{0});
  const double pause_s = number(*report, "pause_ms") / 1000;
  ++moves.pauses;
  moves.pause_s += pause_s;
  for (std::size_t i = 0; i < kPauseBounds.size(); ++i) {
    if (pause_s <= kPauseBounds[i]) ++moves.pauses_within[i];
  }
  const auto parts = report->value("pause", nlohmann::json::object());
  for (const auto& [part, ms] : parts.items()) {
    if (ms.is_number()) moves.part_s[part.substr(0, part.rfind("_ms"))] += ms.get<double>() / 1000;
  }
}

void Metrics::text(const std::string& tenant, std::function<void(std::string)> done) {
  sources_.host.network.list_wires(tenant, [this, tenant, done](const nlohmann::json& wires) {
    sources_.host.components.port_counters(
        [this, tenant, done, wires](const nlohmann::json& ports) {
          sources_.host.wires.stats_and_losses(
              [this, tenant, done, wires, ports](const WireThreads::Stats& stats) {
                Exposition out;
                write_agent(out);
                write_sessions(out);
                write_vms(out, tenant);
                write_wires(out, wires);
                write_components(out, tenant, ports);
                write_wire_threads(out, stats);
                write_moves(out, tenant);
                write_running(out, tenant);
                write_replicas(out, tenant);
                write_pauses(out, tenant);
                done(out.text());
              });
        });
  });
}

void Metrics::write_agent(Exposition& out) const {
  out.family("godwit_info", "gauge", "Constant 1; what runs here.");
  out.sample(1, {{"version", GODWIT_VERSION},
                 {"host", sources_.config.name},
                 {"site", sources_.config.site}});
  out.gauge("godwit_uptime_seconds", "Since the agent's start.",
            to_seconds(sources_.loop.now() - started_));
  out.gauge("process_open_fds", "Open file descriptors.", open_descriptors());
  out.gauge("process_resident_memory_bytes", "Memory of the agent, without QEMU.",
            resident_bytes());
  out.counter("process_cpu_seconds_total", "User and system time of the agent.", cpu_seconds());
  const auto& loop = sources_.loop.stats();
  out.family("godwit_loop_round_seconds", "histogram",
             "How long the control thread's loop was busy before it could wait again.");
  std::uint64_t within = 0;
  for (std::size_t i = 0; i < loop.within.size(); ++i) {
    within += loop.within[i];
    out.sample(static_cast<double>(within),
               {{"le", fmt::format("{}", to_seconds(os::Loop::kRoundBounds[i]))}}, "_bucket");
  }
  out.sample(static_cast<double>(loop.rounds), {{"le", "+Inf"}}, "_bucket");
  out.sample(to_seconds(loop.busy), {}, "_sum");
  out.sample(static_cast<double>(loop.rounds), {}, "_count");
  const auto& gate = sources_.gate.counters();
  out.family("godwit_api_requests_total", "counter", "Requests of the API, by how they fared.");
  out.sample(static_cast<double>(gate.requests - gate.limited - gate.refused),
             {{"result", "taken"}});
  out.sample(static_cast<double>(gate.limited), {{"result", "limited"}});
  out.sample(static_cast<double>(gate.refused), {{"result", "refused"}});
  const auto door = sources_.fleet.door();
  out.family("godwit_tls_connections_total", "counter",
             "Connections to the TCP port, by the end of their TLS handshake.");
  out.sample(static_cast<double>(door.accepted), {{"result", "accepted"}});
  out.sample(static_cast<double>(door.refused), {{"result", "refused"}});
  out.sample(static_cast<double>(door.timed_out), {{"result", "timed_out"}});
  out.sample(static_cast<double>(door.displaced), {{"result", "displaced"}});
}

void Metrics::write_sessions(Exposition& out) const {
  const auto sessions = sources_.fleet.describe().at("sessions");
  out.family("godwit_session_up", "gauge", "Whether there is a session with a peer.");
  for (const auto& session : sessions) {
    out.sample(session.value("state", "") == "up" ? 1 : 0,
               {{"peer", session.value("peer", "")}, {"via", session.value("via", "")}});
  }
  out.family("godwit_session_rtt_seconds", "gauge", "Round trip of a session that is up.");
  for (const auto& session : sessions) {
    if (session.value("state", "") != "up") continue;
    out.sample(number(session, "rtt_ms") / 1000, {{"peer", session.value("peer", "")}});
  }
}

void Metrics::write_vms(Exposition& out, const std::string& tenant) const {
  std::map<std::pair<std::string, std::string>, int> count;
  for (const auto& vm : sources_.host.vms.list()) {
    const std::string owner = vm.value("tenant", "");
    if (tenant.empty() || owner == tenant) ++count[{owner, vm.value("state", "")}];
  }
  out.family("godwit_vms", "gauge", "Vms that this host knows.");
  for (const auto& [key, vms] : count) {
    out.sample(vms, {{"tenant", key.first}, {"state", key.second}});
  }
}

void Metrics::write_components(Exposition& out, const std::string& tenant,
                               const nlohmann::json& ports) {
  const auto each = [&](auto write) {
    for (const auto& port : ports) {
      const std::string owner = port.value("tenant", "");
      if (!tenant.empty() && owner != tenant) continue;
      write(port, Exposition::Labels{{"component", port.value("component", "")},
                                     {"port", port.value("port", "")},
                                     {"tenant", owner}});
    }
  };
  const auto both_ways = [&](const char* name, const char* help, const std::string& what) {
    out.family(name, "counter", help);
    each([&](const nlohmann::json& port, const Exposition::Labels& labels) {
      for (const char* way : {"tx", "rx"}) {
        out.sample(number(port, (std::string(way) + what).c_str()), with(labels, "direction", way));
      }
    });
  };
  both_ways("godwit_component_frames_total",
            "Frames from (tx) and to (rx) a component's port, super-frames as one.", "_frames");
  both_ways("godwit_component_bytes_total", "Bytes of those frames.", "_bytes");
  out.family("godwit_component_drops_total", "counter",
             "Frames that came to a component's port and went nowhere, by cause.");
  each([&](const nlohmann::json& port, const Exposition::Labels& labels) {
    const auto drops = port.value("drops", nlohmann::json::object());
    for (const auto& [cause, count] : drops.items()) {
      out.sample(count.get<double>(), with(labels, "cause", cause));
    }
  });
}

void Metrics::write_wires(Exposition& out, const nlohmann::json& wires) {
  out.family("godwit_wire_up", "gauge", "Whether frames pass: the state is up or local.");
  for (const auto& wire : wires) {
    const std::string state = wire.value("state", "");
    out.sample(state == "up" || state == "local" ? 1 : 0, labels_of(wire));
  }
  const auto both_ways = [&](const char* name, const char* help, const char* key) {
    out.family(name, "counter", help);
    for (const auto& wire : wires) {
      for (const char* way : {"tx", "rx"}) {
        const auto found = wire.find(way);
        if (found == wire.end()) continue;
        out.sample(number(*found, key), with(labels_of(wire), "direction", way));
      }
    }
  };
  both_ways("godwit_wire_frames_total", "Ethernet frames from (tx) and to (rx) the port here.",
            "frames");
  both_ways("godwit_wire_bytes_total", "Bytes of those frames.", "bytes");
  out.family("godwit_wire_drops_total", "counter", "Frames and datagrams dropped, by cause.");
  for (const auto& wire : wires) {
    const auto drops = wire.value("drops", nlohmann::json::object());
    for (const auto& [cause, count] : drops.items()) {
      out.sample(count.get<double>(), with(labels_of(wire), "cause", cause));
    }
  }
  out.family("godwit_wire_rtt_seconds", "gauge", "Round trip of the wire's path; 0: not measured.");
  for (const auto& wire : wires) out.sample(number(wire, "rtt_ms") / 1000, labels_of(wire));
  out.family("godwit_wire_path_mtu_bytes", "gauge", "Largest IP packet of the wire's path.");
  for (const auto& wire : wires) out.sample(number(wire, "mtu"), labels_of(wire));
}

void Metrics::write_wire_threads(Exposition& out, const WireThreads::Stats& stats) const {
  out.counter("godwit_stray_datagrams_total", "Datagrams with a receiver index nobody was given.",
              static_cast<double>(stats.stray_datagrams));
  out.counter("godwit_looped_frames_total", "Frames that went round and round between components.",
              static_cast<double>(stats.looped));
  out.counter("godwit_tap_refused_frames_total", "Frames that a TAP did not take.",
              static_cast<double>(stats.tap_refused));
  out.counter("godwit_udp_dropped_datagrams_total", "Datagrams for which UDP had no room.",
              static_cast<double>(stats.udp_dropped));
  out.counter("godwit_crossing_dropped_total",
              "Frames for a wire thread that was too far behind the one that had them.",
              static_cast<double>(stats.crossing_dropped));
  out.family("godwit_wire_thread_cpu_seconds_total", "counter", "CPU time of threads with wires.");
  const auto times = sources_.host.wires.cpu_times();
  for (std::size_t i = 0; i < times.size(); ++i) {
    out.sample(std::chrono::duration<double>(times[i]).count(), {{"thread", std::to_string(i)}});
  }
}

// Those away from here that are not over.
std::vector<nlohmann::json> Metrics::running() const {
  auto all = sources_.host.migrations.list();
  std::erase_if(all, [this](const nlohmann::json& migration) {
    const std::string state = migration.value("state", "");
    return migration.value("from", "") != sources_.config.name || state == "done" ||
           state == "aborted";
  });
  return all;
}

void Metrics::write_moves(Exposition& out, const std::string& tenant) const {
  std::map<std::string, int> count_of;
  for (const auto& migration : running()) ++count_of[migration.value("tenant", "")];
  const auto mine = [&](const std::string& owner) { return tenant.empty() || owner == tenant; };
  out.family("godwit_migrations_running", "gauge", "Migrations away from here that are not over.");
  for (const auto& [owner, count] : count_of) {
    if (mine(owner)) out.sample(count, {{"tenant", owner}});
  }
  out.family("godwit_migrations_total", "counter", "Migrations away from here, by outcome.");
  for (const auto& [owner, moves] : moves_) {
    for (const auto& [outcome, count] : moves.ended) {
      if (mine(owner)) {
        out.sample(static_cast<double>(count), {{"tenant", owner}, {"outcome", outcome}});
      }
    }
  }
  out.family("godwit_migrations_arrived_total", "counter", "Vms that came here and ran.");
  for (const auto& [owner, moves] : moves_) {
    if (mine(owner)) out.sample(static_cast<double>(moves.arrived), {{"tenant", owner}});
  }
  out.family("godwit_migration_bytes_total", "counter",
             "Of the moves away that were done: QEMU's stream, and what the WAN carried.");
  for (const auto& [owner, moves] : moves_) {
    if (!mine(owner)) continue;
    out.sample(static_cast<double>(moves.memory_bytes), {{"tenant", owner}, {"kind", "memory"}});
    out.sample(static_cast<double>(moves.wan_bytes), {{"tenant", owner}, {"kind", "wan"}});
  }
}

void Metrics::write_replicas(Exposition& out, const std::string& tenant) const {
  auto replicas = sources_.host.replicas.list();
  std::erase_if(replicas, [&](const nlohmann::json& replica) {
    return !tenant.empty() && replica.value("tenant", "") != tenant;
  });
  const auto family = [&](const char* name, const char* help, const char* key) {
    out.family(name, "gauge", help);
    for (const auto& replica : replicas) {
      if (!replica.contains(key)) continue;
      out.sample(number(replica, key), {{"vm", replica.value("vm", "")},
                                        {"to", replica.value("to", "")},
                                        {"tenant", replica.value("tenant", "")}});
    }
  };
  family("godwit_replica_behind_seconds", "Since the last run that came whole began.", "behind_s");
  family("godwit_replica_behind_bytes", "Written by the guest since then, in blocks of 64 KiB.",
         "behind_bytes");
}

// Of each migration while its memory crosses.
void Metrics::write_running(Exposition& out, const std::string& tenant) const {
  auto moves = running();
  std::erase_if(moves, [&](const nlohmann::json& move) {
    return !move.contains("progress") || !(tenant.empty() || move.value("tenant", "") == tenant);
  });
  const auto labels = [](const nlohmann::json& move) -> Exposition::Labels {
    return {{"migration", move.value("id", "")},
            {"vm", move.value("vm", "")},
            {"tenant", move.value("tenant", "")},
            {"to", move.value("to", "")}};
  };
  const auto family = [&](const char* name, const char* type, const char* help, const char* key,
                          double unit) {
    out.family(name, type, help);
    for (const auto& move : moves) {
      const auto& progress = move.at("progress");
      if (progress.contains(key)) out.sample(number(progress, key) * unit, labels(move));
    }
  };
  constexpr double kBit = 1.0 / 8, kMs = 1.0 / 1000;
  family("godwit_migration_rate_bytes_per_second", "gauge", "What the lane delivers.", "rate_bps",
         kBit);
  family("godwit_migration_effective_rate_bytes_per_second", "gauge",
         "Memory that is delivered, before it is encoded.", "effective_rate_bps", kBit);
  family("godwit_migration_predicted_pause_seconds", "gauge", "If the guest were paused now.",
         "predicted_pause_ms", kMs);
  family("godwit_migration_cpu_seconds_total", "counter",
         "Of the agent and of QEMU, its guest's with it, since the move began.", "cpu_s", 1);
  const auto by_encoding = [&](const char* name, const char* help, const char* key) {
    out.family(name, "counter", help);
    for (const auto& move : moves) {
      for (const auto& use : move.at("progress").value("encodings", nlohmann::json::array())) {
        out.sample(number(use, key), with(labels(move), "encoding", use.value("name", "")));
      }
    }
  };
  by_encoding("godwit_migration_encoding_pages_total", "Pages that became this.", "pages");
  by_encoding("godwit_migration_encoding_input_bytes_total",
              "Of QEMU's stream; of zstd, which comes last: of what the others left.", "bytes");
  by_encoding("godwit_migration_encoding_output_bytes_total", "What is left of them.",
              "encoded_bytes");
}

void Metrics::write_pauses(Exposition& out, const std::string& tenant) const {
  const auto mine = [&](const std::string& owner) { return tenant.empty() || owner == tenant; };
  out.family("godwit_migration_pause_seconds", "histogram",
             "The guests' pauses: from QEMU's STOP here until the vCPUs run at the target.");
  for (const auto& [owner, moves] : moves_) {
    if (!mine(owner)) continue;
    const Exposition::Labels of = {{"tenant", owner}};
    for (std::size_t i = 0; i < kPauseBounds.size(); ++i) {
      out.sample(static_cast<double>(moves.pauses_within[i]),
                 with(of, "le", fmt::format("{}", kPauseBounds[i])), "_bucket");
    }
    out.sample(static_cast<double>(moves.pauses), with(of, "le", "+Inf"), "_bucket");
    out.sample(moves.pause_s, of, "_sum");
    out.sample(static_cast<double>(moves.pauses), of, "_count");
  }
  out.family("godwit_migration_pause_part_seconds_total", "counter",
             "The parts that those pauses add up from.");
  for (const auto& [owner, moves] : moves_) {
    for (const auto& [part, total] : moves.part_s) {
      if (mine(owner)) out.sample(total, {{"tenant", owner}, {"part", part}});
    }
  }
}

}  // namespace godwit::agent

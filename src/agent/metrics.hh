#pragma once
// What Prometheus reads at /metrics: figures of the agent itself, its sessions, vms, wires and
// migrations. Nothing is counted twice: each part is asked when somebody reads, only ended
// migrations are summed up here. Control thread.
#include <array>
#include <functional>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "agent/api_gate.hh"
#include "agent/exposition.hh"
#include "agent/fleet.hh"
#include "agent/host_parts.hh"

namespace godwit::agent {

class Metrics final {
 public:
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

  struct Sources {
    os::Loop& loop;
    const Config& config;
    const Fleet& fleet;
    HostParts& host;
    const ApiGate& gate;
  };
  Metrics(Sources sources, Events& events);

  // All of it; with a tenant only its vms, wires and migrations.
  void text(const std::string& tenant, std::function<void(std::string)> done);

 private:
  // Upper bounds of the pause's histogram, in seconds: around the limits that operators give.
  static constexpr std::array kPauseBounds = {0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 3.0, 10.0};
  // Of one tenant, since the agent's start.
  struct Moves {
    std::map<std::string, std::uint64_t> ended;  // by outcome
    std::uint64_t arrived = 0;
    std::uint64_t memory_bytes = 0, wan_bytes = 0;
    std::array<std::uint64_t, kPauseBounds.size()> pauses_within{};
    std::uint64_t pauses = 0;
    double pause_s = 0;
    std::map<std::string, double> part_s;
  };

  void observe(std::string_view name, const nlohmann::json& data);
  void add_ended(const nlohmann::json& migration);
  void write_agent(Exposition& out) const;
  void write_sessions(Exposition& out) const;
  void write_vms(Exposition& out, const std::string& tenant) const;
  static void write_wires(Exposition& out, const nlohmann::json& wires);
  static void write_components(Exposition& out, const std::string& tenant,
                               const nlohmann::json& ports);
  void write_wire_threads(Exposition& out, const WireThreads::Stats& stats) const;
  std::vector<nlohmann::json> running() const;
  void write_replicas(Exposition& out, const std::string& tenant) const;
  void write_moves(Exposition& out, const std::string& tenant) const;
  void write_running(Exposition& out, const std::string& tenant) const;
  void write_pauses(Exposition& out, const std::string& tenant) const;

  Sources sources_;
  Instant started_;
  std::map<std::string, Moves> moves_;  // by tenant
};

}  // namespace godwit::agent

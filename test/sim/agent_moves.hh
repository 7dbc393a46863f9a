#pragma once
// What an agent of the simulation keeps of a move while it lives; included by agent*.cc only.
#include <algorithm>

#include "agent.hh"
#include "cloud.hh"

namespace godwit::sim {

using Json = nlohmann::json;
using migrate::Moment;
using migrate::Source;
using migrate::Target;
using SE = migrate::SourceEvent;
using SF = migrate::SourceEffect;
using SS = migrate::SourceState;
using TE = migrate::TargetEvent;
using TF = migrate::TargetEffect;
using TS = migrate::TargetState;

struct Agent::SourceMove {
  // What is under way, in the order in which it is.
  // `follows`: in post-copy, once the guest runs at the target.
  enum class Stage { none, bulk, rest, stands, device, back, end, follows, over };

  Json record;
  Source machine;
  migrate::EventQueue<Source> queue;
  Timer bound = 0, retry = 0, again = 0;
  // What agent/source_memory.cc and QEMU do.
  Stage stage = Stage::none;
  Nanoseconds left{};  // of the stage, while the lane is up
  bool continued = false, lane_up = false, lane_was_up = false;
  Instant lane_due{}, dialled{}, stands_since{};

  SourceMove(Json from, migrate::EventQueue<Source>::Handlers handlers)
      : record(std::move(from)),
        machine({.hold = record["hold"], .pause_on_diverge = false},
                *migrate::source_state(record["state"].get<std::string>()), record["abort_told"],
                record["memory_follows"]),
        queue(machine, std::move(handlers)) {}
  std::string id() const { return record["id"]; }
  std::string vm() const { return record["vm"]; }
  std::string to() const { return record["to"]; }
  PortId port() const { return *PortId::parse(record["port"].get<std::string>()); }
  Epoch epoch() const { return record["epoch"]; }
  bool postcopy() const { return record["postcopy"]; }
  std::uint64_t process() const { return record["process"]; }
};

struct Agent::TargetMove {
  Json record;
  Target machine;
  migrate::EventQueue<Target> queue;
  Timer bound = 0, ports = 0, again = 0;
  Answer preparing;
  std::vector<Answer> waiting;
  bool has_link = false, listening = false, ports_held = false, loaded = false, verified = false;
  bool holding = false;

  TargetMove(Json from, migrate::EventQueue<Target>::Handlers handlers)
      : record(std::move(from)),
        machine(*migrate::target_state(record["state"].get<std::string>()), record["refusal_told"]),
        queue(machine, std::move(handlers)) {}
  std::string id() const { return record["id"]; }
  std::string vm() const { return record["vm"]; }
  std::string from() const { return record["from"]; }
  PortId port() const { return *PortId::parse(record["port"]["id"].get<std::string>()); }
  Epoch epoch() const { return record["epoch"]; }
};

template <class Call>
void Agent::at_engine(Call call) {
  Host& host = cloud_.world().host(host_);
  if (!host.engine()) return;
  call(*host.engine(), host.now());
  host.schedule_tick();
}

}  // namespace godwit::sim

// No port is live at two hosts, ever; and when all is quiet each is at one, in one epoch, and the
// other end of its wire knows.
#include "fabric_agents.hh"

namespace godwit::sim {

void FabricAgents::expect_one(std::size_t index) {
  for (const std::size_t port : plan_.residents[index].ports) {
    int live = 0;
    for (Host* host : world_.hosts()) {
      live += host->engine() && host->engine()->live_epoch(plan_.ports[port].id);
    }
    if (live > 1) {
      fail_(fmt::format("port {} of {} is live at {} hosts", plan_.ports[port].index,
                        plan_.residents[index].name, live));
    }
  }
}

std::string FabricAgents::disorder() const {
  for (std::size_t i = 0; i < residents_.size(); ++i) {
    if (auto wrong = disorder_of(i); !wrong.empty()) return wrong;
  }
  for (const std::string& host : world_.names()) {
    if (auto wrong = disorder_at(host); !wrong.empty()) return wrong;
  }
  return {};
}

std::string FabricAgents::disorder_of(std::size_t index) const {
  const Resident& resident = residents_[index];
  const PlannedResident& planned = plan_.residents[index];
  if (resident.step != Step::idle || !resident.runs) return planned.name + " is still moving";
  for (const std::size_t port : planned.ports) {
    const auto live = world_.host(resident.host).engine()->live_epoch(plan_.ports[port].id);
    if (live == resident.epoch) continue;
    return fmt::format("port {} of {} is not live at {} in epoch {}", plan_.ports[port].index,
                       planned.name, resident.host, resident.epoch);
  }
  for (Host* host : world_.hosts()) {
    const bool is_there = host->components()->find(planned.component) != nullptr;
    if (is_there == (!planned.is_guest() && host->name() == resident.host)) continue;
    return fmt::format("{} is {}at {}", planned.name, is_there ? "" : "not ", host->name());
  }
  return {};
}

// Nothing that is not live, or of another's.
std::string FabricAgents::disorder_at(const std::string& host) const {
  for (const wire::PortStats& stats : world_.host(host).engine()->port_stats()) {
    const PlannedPort& port = plan_.ports[by_id_.at(stats.id.port)];
    const Resident& resident = residents_[port.resident];
    const bool is_its = resident.host == host && stats.id.epoch == resident.epoch;
    const bool waited_in_vain = is_fine_ && stats.waits_expired > 0;
    if (is_its && stats.state == wire::PortState::live && stats.held_frames == 0) {
      if (!waited_in_vain) continue;
      return fmt::format("port {} of {} waited in vain", port.index,
                         plan_.residents[port.resident].name);
    }
    return fmt::format("port {} of {} is {} at {} in epoch {}, with {} frames", port.index,
                       plan_.residents[port.resident].name, wire::to_text(stats.state), host,
                       stats.id.epoch, stats.held_frames);
  }
  for (const wire::WireStats& stats : world_.host(host).engine()->wire_stats()) {
    if (auto wrong = disorder_of_port(by_id_.at(stats.local), stats); !wrong.empty()) return wrong;
  }
  return {};
}

std::string FabricAgents::disorder_of_port(std::size_t index, const wire::WireStats& stats) const {
  const Port& port = ports_[index];
  const std::string name = fmt::format("port {} of {}", plan_.ports[index].index,
                                       plan_.residents[plan_.ports[index].resident].name);
  if (!port.peer || stats.wire != port.wire) return name + " has a wire of before";
  const Resident& peer = residents_[plan_.ports[*port.peer].resident];
  if (stats.remote_host != peer.host || stats.remote_epoch != peer.epoch) {
    return fmt::format("{} sends to {} in epoch {}, its peer is at {} in epoch {}", name,
                       stats.remote_host, stats.remote_epoch, peer.host, peer.epoch);
  }
  if (port.known.host != peer.host || port.known.epoch != peer.epoch) {
    return fmt::format("the record of {} leads to {} in epoch {}, its peer is at {} in epoch {}",
                       name, port.known.host, port.known.epoch, peer.host, peer.epoch);
  }
  if (stats.state != "up" && stats.state != "local") {
    return fmt::format("the wire of {} is {}", name, stats.state);
  }
  return {};
}

}  // namespace godwit::sim

// The ways to other hosts: what the wire thread says of them, as events and for `host show`.
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "agent/network.hh"

namespace godwit::agent {

void Network::on_path_event(const wire::Event& event) {
  if (event.kind == wire::EventKind::path_lost) {
    spdlog::warn("no path to {} answers", event.host);
    return events_.publish("path", {{"host", event.host}, {"state", "lost"}});
  }
  const std::string path = to_endpoint(event.path).text();
  spdlog::info("wires to {} take {}{}", event.host, path,
               event.via.empty() ? "" : " of the relay " + event.via);
  events_.publish("path",
                  {{"host", event.host}, {"state", "proven"}, {"path", path}, {"via", event.via}});
  // What made datagrams take another way may have taken TCP connections with it.
  const std::string before = std::exchange(paths_[event.host], path + " " + event.via);
  if (!before.empty() && before != paths_[event.host] && path_changed) path_changed(event.host);
}

void Network::describe_datagrams(std::function<void(nlohmann::json)> done) {
  wires_.stats([done = std::move(done)](const WireThreads::Stats& stats) {
    nlohmann::json peers = nlohmann::json::array();
    for (const auto& peer : stats.peers) {
      nlohmann::json paths = nlohmann::json::array();
      for (const auto& path : peer.paths) {
        paths.push_back({{"address", to_endpoint(path.address).text()},
                         {"via", path.via},
                         {"active", path.is_active},
                         {"answers", path.answers},
                         {"rtt_ms", to_ms(path.rtt)},
                         {"mtu", path.mtu}});
      }
      peers.push_back({{"peer", peer.host},
                       {"state", peer.state},
                       {"relays", peer.relays},
                       {"paths", std::move(paths)}});
    }
    const wire::RelayStats& relayed = stats.relayed;
    done({{"paths", std::move(peers)},
          {"datagrams",
           {{"strays", stats.stray_datagrams},
            {"socket_overflow", stats.udp_overflowed},
            {"unsent_dropped", stats.udp_dropped}}},
          {"relayed",
           {{"datagrams", relayed.datagrams},
            {"bytes", relayed.bytes},
            {"refused",
             {{"source", relayed.refused_source},
              {"target", relayed.refused_target},
              {"rate", relayed.refused_rate},
              {"udp_full", stats.relay_dropped}}}}}});
  });
}

}  // namespace godwit::agent

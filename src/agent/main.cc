// godwitd: wires the agent's parts together and runs the control thread's loop.
//
//   Fleet (sessions, lanes) ──▶ Migrations ──▶ Vms ──▶ Network ──▶ WireThread
//   http::Server (API) ──▶ all of them
#include <spdlog/spdlog.h>
#include <sys/prctl.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/api.hh"
#include "agent/config.hh"
#include "base/result.hh"

namespace godwit::agent {
namespace {

void make_private_directory(const std::filesystem::path& path, std::filesystem::perms perms) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) std::filesystem::permissions(path, perms, error);
  if (error) fail_setup("cannot make the directory {}: {}", path.string(), error.message());
}

std::vector<wire::PeerAddress> wire_addresses(const Fleet& fleet, const session::Session& session) {
  std::vector<wire::PeerAddress> addresses;
  // Where the session runs is known to work; behind a relay it is somebody else's.
  const auto seen = os::Endpoint::parse(session.peer_address());
  const auto known = fleet.addresses(session.peer());
  if (seen && session.via().empty()) {
    for (const auto& endpoint : known) {
      if (endpoint.address == seen->address) addresses.push_back(to_peer_address(endpoint));
    }
  }
  for (const auto& endpoint : known) addresses.push_back(to_peer_address(endpoint));
  return addresses;
}

void run(const Config& config) {
  make_private_directory(config.state_dir, std::filesystem::perms::owner_all);
  // QEMU's user passes through to its own vm's directory.
  make_private_directory(config.run_dir, std::filesystem::perms(0711));
  make_private_directory(config.run_dir / "vms", std::filesystem::perms(0711));

  os::Loop loop;
  const auto signals = loop.on_signals({SIGINT, SIGTERM}, [&](int signal) {
    spdlog::info("{}: ending; vms go on running", strsignal(signal));
    loop.stop();
  });
  const auto store = store::open_sqlite(config.store().string());
  Events events;

  // The parts refer to each other; these are set before the loop runs.
  Fleet* fleet_ref = nullptr;
  Network* network_ref = nullptr;
  Migrations* migrations_ref = nullptr;

  WireThread wires(loop, config.name,
                   {.control =
                        [&](const std::string& peer, const Bytes& message) {
                          (void)fleet_ref->push_wire_control(peer, message);  // down: said again
                        },
                    .event = [&](const wire::Event& event) { network_ref->on_wire_event(event); }});
  Network network(loop, config, *store, wires, events);
  network_ref = &network;

  Fleet fleet(loop, config, *store, events,
              {.up =
                   [&](session::Session& session) {
                     wires.session_up(session.peer(), session.wire_secret(), session.is_initiator(),
                                      wire_addresses(*fleet_ref, session));
                     network.on_session_up(session.peer());
                     migrations_ref->on_session_up(session.peer());
                   },
               .down = [&](const std::string& peer) { wires.session_down(peer); },
               .request =
                   [&](PeerRequest request, const nlohmann::json& body) {
                     if (request.method.starts_with("migration.")) {
                       return migrations_ref->on_request(std::move(request), body);
                     }
                     network.on_request(std::move(request), body);
                   },
               .wire_control = [&](const std::string& peer,
                                   BytesView message) { wires.control(peer, to_bytes(message)); },
               .lane =
                   [&](const std::string& peer, std::unique_ptr<os::ByteStream> lane) {
                     migrations_ref->on_lane(peer, std::move(lane));
                   }});
  fleet.online = [&](std::shared_ptr<os::UdpSocket> socket) {
    wires.use_socket(std::move(socket));
  };
  fleet_ref = &fleet;
  network.use_peers(fleet);

  Vms vms(loop, config, *store, network, events);
  Migrations migrations({.loop = loop,
                         .config = config,
                         .store = *store,
                         .network = network,
                         .vms = vms,
                         .peers = fleet,
                         .events = events},
                        [&](const std::string& site) { return fleet.hosts_of_site(site); });
  migrations_ref = &migrations;

  network.start();
  vms.start();
  migrations.start();
  network.sweep_nics();
  fleet.start();

  http::Server server(loop);
  add_routes(server, {.loop = loop,
                      .config = config,
                      .fleet = fleet,
                      .network = network,
                      .vms = vms,
                      .migrations = migrations,
                      .events = events});
  server.listen_unix(config.socket().string(), 0600);
  spdlog::info("godwitd {} on host {}, site {}", GODWIT_VERSION, config.name, config.site);
  loop.run();
}

}  // namespace
}  // namespace godwit::agent

int main(int argc, char** argv) {
  try {
    const auto config = godwit::agent::parse_command_line(argc, argv);
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    spdlog::flush_on(spdlog::level::info);
    if (config.verbose) spdlog::set_level(spdlog::level::debug);
    std::signal(SIGPIPE, SIG_IGN);
    godwit::agent::run(config);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "godwitd: {}\n", error.what());
    return 1;
  }
}

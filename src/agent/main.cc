// godwitd: wires the agent's parts together and runs the control thread's loop.
//
//   Fleet (sessions, lanes) ──▶ Migrations ──▶ Vms ──▶ Network ──▶ WireThreads
//   http::Server (API) ──▶ all of them
#include <spdlog/spdlog.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/api.hh"
#include "agent/api_forward.hh"
#include "agent/config.hh"
#include "agent/contents.hh"
#include "agent/digest_key.hh"
#include "agent/mapping.hh"
#include "base/result.hh"
#include "etcd/client.hh"
#include "os/service.hh"

namespace godwit::agent {
namespace {

constexpr Nanoseconds kLateRetry = seconds(2);  // to write to a disk that was full

void make_private_directory(const std::filesystem::path& path, std::filesystem::perms perms) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) std::filesystem::permissions(path, perms, error);
  if (error) fail_setup("cannot make the directory {}: {}", path.string(), error.message());
}

std::vector<wire::PeerAddress> to_peer_addresses(const std::vector<os::Endpoint>& endpoints) {
  std::vector<wire::PeerAddress> addresses;
  for (const auto& endpoint : endpoints) addresses.push_back(to_peer_address(endpoint));
  return addresses;
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

const Config& with_directories(const Config& config) {
  make_private_directory(config.state_dir, std::filesystem::perms::owner_all);
  // QEMU's user passes through to its own vm's directory.
  make_private_directory(config.run_dir, std::filesystem::perms(0711));
  for (const char* each : {"vms", "replicas", "volumes", "pages"}) {
    make_private_directory(config.run_dir / each, std::filesystem::perms(0711));
  }
  for (const auto& disks : {config.disk_dir, config.library(), config.vm_disks()}) {
    make_private_directory(disks, std::filesystem::perms(0711));
  }
  return config;
}

constexpr Nanoseconds kSweepInterval = seconds(30);

// A user of the API, by the certificate that the TLS handshake has verified.
http::Caller caller_of(const session::TlsStream& stream) {
  const crypto::Certificate& certificate = stream.tls().peer_user().value();
  const crypto::User user = certificate.user().value();
  return {
      .role = user.role == crypto::UserRole::operator_ ? http::Role::operator_ : http::Role::viewer,
      .name = user.name,
      .tenant = user.tenant,
      .from = stream.peer(),
      .serial = certificate.serial(),
      .expires = certificate.not_after().time_since_epoch().count()};
}

// Images and disks that vms left came or went; not for each word of a vm that is being handed over.
bool changes_contents(std::string_view event, const nlohmann::json& data) {
  return event == "image" || event == Events::kMigrationOver ||
         (event == "vm" && text_field_or(data, "event", "") == "removed");
}

// Where guests are may be another now.
bool moves_guests(std::string_view event) {
  return event == "port" || event == "wire" || event == "vm" || event == "relocation";
}

std::unique_ptr<etcd::Keys> etcd_of(os::Loop& loop, const MappingConfig& config) {
  if (!config.is_wanted()) return nullptr;
  return std::make_unique<etcd::Client>(loop, config.etcd);
}

// The parts, each after those that it uses. What they tell those above them goes through handlers,
// which are called from the loop, when all are there.
class Agent final {
 public:
  explicit Agent(const Config& config)
      : config_(with_directories(config)),
        store_(store::open_sqlite(config.store().string())),
        wires_(loop_, config.name, wire_limits(config), wire_handlers(), config.wire_threads),
        network_(loop_, config, *store_, wires_, events_),
        components_(loop_, config, *store_, network_, wires_, events_),
        device_(loop_, config, *store_, events_),
        fleet_(loop_, config, *store_, events_, fleet_handlers()),
        users_(config, *store_, fleet_),
        images_(loop_, config, *store_, events_),
        disks_(config, *store_, images_),
        vms_(loop_, config, *store_, network_, disks_, events_),
        nics_(loop_, config, vms_, network_),
        replicas_({.loop = loop_,
                   .config = config,
                   .store = *store_,
                   .vms = vms_,
                   .disks = disks_,
                   .peers = fleet_,
                   .events = events_},
                  [this](const std::string& name) { return fleet_.hosts_called(name); }),
        digest_key_(digest_key(*store_)),
        known_(loop_, digest_key_, config.known_memory),
        contents_(loop_, config, digest_key_, images_, disks_),
        volumes_(loop_, config),
        fabrics_(*store_, fleet_, events_),
        endpoint_({.loop = loop_,
                   .config = config,
                   .store = *store_,
                   .network = network_,
                   .peers = fleet_,
                   .device = device_,
                   .fabrics = fabrics_,
                   .events = events_}),
        relocations_({.loop = loop_,
                      .config = config,
                      .store = *store_,
                      .network = network_,
                      .peers = fleet_,
                      .device = device_,
                      .events = events_},
                     fabrics_, endpoint_),
        migrations_({.loop = loop_,
                     .config = config,
                     .store = *store_,
                     .network = network_,
                     .components = components_,
                     .vms = vms_,
                     .disks = disks_,
                     .replicas = replicas_,
                     .known = known_,
                     .contents = contents_,
                     .volumes = volumes_,
                     .relocations = relocations_,
                     .peers = fleet_,
                     .events = events_},
                    [this](const std::string& name) { return fleet_.hosts_called(name); }),
        mappings_(
            {.loop = loop_,
             .host = config.name,
             .site = config.site,
             .config = config_.mapping,
             .store = *store_,
             .guests =
                 [this](const std::set<PortId>& known) { return located_guests(network_, known); }},
            etcd_of(loop_, config_.mapping)),
        recordings_(loop_, vms_, migrations_),
        audit_(config.audit()),
        gate_(
            audit_, [this](const std::string& serial) { return users_.is_revoked(serial); },
            [this] { return loop_.now(); }),
        metrics_({.loop = loop_,
                  .config = config,
                  .fleet = fleet_,
                  .wires = wires_,
                  .network = network_,
                  .components = components_,
                  .vms = vms_,
                  .migrations = migrations_,
                  .replicas = replicas_,
                  .gate = gate_},
                 events_),
        server_(loop_),
        forward_(loop_, server_, fleet_,
                 [this](const std::string& name) { return fleet_.hosts_called(name); }) {
    fleet_.online = [this](std::shared_ptr<os::UdpSocket> socket) {
      wires_.use_socket(std::move(socket));
    };
    network_.use_peers(fleet_);
    network_.use_trust(fleet_.trust());
    users_.changed = [this] { cut_ended_users(); };
    events_.observe([this](std::string_view name, const nlohmann::json& data) {
      audit_migration(audit_, name, data);
      if (changes_contents(name, data)) contents_.look();
      if (moves_guests(name)) mappings_.look_soon();
      if (name == "port" && text_field_or(data, "event", "") == "removed") {
        mappings_.port_removed(text_field_or(data, "name", ""));
      }
    });
    serve_api();
    network_.path_changed = [this](const std::string& host) {
      fleet_.doubt(host);
      migrations_.doubt_lanes(host);
    };
    wires_.use_addresses(to_peer_addresses(fleet_.own_addresses()));
  }

  void run() {
    const auto signals = loop_.on_signals({SIGINT, SIGTERM}, [this](int signal) {
      spdlog::info("{}: ending; vms go on running", strsignal(signal));
      loop_.stop();
    });
    network_.start();
    components_.start(ComponentMoves::left(*store_));
    images_.start([this](const std::string& image) { return disks_.vms_on(image); });
    vms_.start();
    nics_.start();
    device_.start();
    fabrics_.start();
    endpoint_.associations.start();
    endpoint_.source.start();
    relocations_.start();
    endpoint_.kernel.start();
    migrations_.start();
    mappings_.start();
    replicas_.start();
    contents_.start();
    network_.sweep_nics();
    fleet_.start();
    users_.start();
    server_.listen_unix(config_.socket().string(), 0600);
    os::tell_service_ready();
    spdlog::info("godwitd {} on host {}, site {}", GODWIT_VERSION, config_.name, config_.site);
    catch_up();
    loop_.run();
  }

 private:
  // What a full disk did not take is offered to it again and again.
  void catch_up() {
    const auto done = store_->catch_up();
    if (done.has_value() == disk_is_full_) {
      disk_is_full_ = !done;
      if (!done) spdlog::error("{}; until then nothing new begins here", done.error().text);
      if (done) spdlog::info("the agent's store is written again");
    }
    late_ = loop_.after(kLateRetry, [this] { catch_up(); });
  }

  void serve_api() {
    server_.use_gate([this](const http::Request& request, http::Responder& responder) {
      if (!forward_.is_elsewhere(request)) return gate_.admit(request, responder);
      if (gate_.let_pass(request, responder)) forward_.forward(request, std::move(responder));
      return false;
    });
    add_routes(server_, {.loop = loop_,
                         .config = config_,
                         .fleet = fleet_,
                         .network = network_,
                         .components = components_,
                         .device = device_,
                         .images = images_,
                         .disks = disks_,
                         .vms = vms_,
                         .nics = nics_,
                         .volumes = volumes_,
                         .replicas = replicas_,
                         .fabrics = fabrics_,
                         .relocations = relocations_,
                         .endpoint = endpoint_,
                         .migrations = migrations_,
                         .mappings = mappings_,
                         .recordings = recordings_,
                         .store = *store_,
                         .events = events_,
                         .users = users_,
                         .audit = audit_,
                         .metrics = metrics_});
    cut_ended_users();
  }

  // Their certificates end while they listen to events or sit at a console.
  void cut_ended_users() {
    server_.cut([this](const http::Caller& caller) { return !gate_.is_good(caller); });
    sweep_ = loop_.after(kSweepInterval, [this] { cut_ended_users(); });
  }

  WireThread::Handlers wire_handlers() {
    return {.control =
                [this](const std::string& peer, const Bytes& message) {
                  (void)fleet_.push(peer, Fleet::kWireControl, message);  // down: said again
                },
            .event = [this](const wire::Event& event) { network_.on_wire_event(event); }};
  }

  Fleet::Handlers fleet_handlers() {
    return {.up =
                [this](session::Session& session) {
                  wires_.session_up(session.peer(), session.wire_secret(), session.is_initiator(),
                                    wire_addresses(fleet_, session), session.protocol());
                  network_.on_session_up(session.peer());
                  migrations_.on_session_up(session.peer());
                  replicas_.on_session_up(session.peer());
                  fabrics_.on_session_up(session.peer());
                  if (users_.revocations().empty()) return;
                  const auto told = session.push(Users::kPush, {{"pem", users_.revocations()}});
                  if (!told) spdlog::warn("host {}: {}", session.peer(), told.error().text);
                },
            .down = [this](const std::string& peer) { wires_.session_down(peer); },
            .request =
                [this](PeerRequest request, const nlohmann::json& body) {
                  if (request.method.starts_with("migration.") ||
                      request.method.starts_with("component.") ||
                      request.method.starts_with("libvirt.")) {
                    return migrations_.on_request(std::move(request), body);
                  }
                  if (request.method.starts_with("rule.")) {
                    return device_.on_request(std::move(request), body);
                  }
                  if (request.method.starts_with("uplink.")) {
                    return relocations_.on_request(std::move(request), body);
                  }
                  if (request.method.starts_with("flow.")) {
                    return request.answer(
                        endpoint_.associations.answer(request.peer, request.method, body));
                  }
                  if (request.method.starts_with("endpoint.")) {
                    return endpoint_.source.on_request(std::move(request), body);
                  }
                  if (request.method == "fabric.exchange") {
                    return fabrics_.on_request(request, body);
                  }
                  if (request.method.starts_with("replica.")) {
                    return replicas_.on_request(std::move(request), body);
                  }
                  if (request.method.starts_with("api.")) {
                    return forward_.on_request(std::move(request), body);
                  }
                  network_.on_request(std::move(request), body);
                },
            .wire_control = [this](const std::string& peer,
                                   BytesView message) { wires_.control(peer, to_bytes(message)); },
            .lane =
                [this](const std::string& peer, std::unique_ptr<os::ByteStream> lane) {
                  migrations_.on_lane(peer, std::move(lane));
                },
            .api =
                [this](std::unique_ptr<session::TlsStream> stream) {
                  http::Caller caller = caller_of(*stream);
                  server_.serve(std::move(stream), std::move(caller));
                },
            .push =
                [this](const std::string& peer, const std::string& method, BytesView body) {
                  if (method == kStatePush) {
                    return migrations_.on_state(peer, body);
                  }
                  const auto json = nlohmann::json::parse(as_text(body), nullptr, false);
                  if (method == Users::kPush) users_.learn(peer, text_field_or(json, "pem", ""));
                },
            .addresses_changed =
                [this] {
                  wires_.use_addresses(to_peer_addresses(fleet_.own_addresses()));
                  wires_.addresses_changed();
                  for (const auto& peer : fleet_.up()) migrations_.doubt_lanes(peer);
                },
            // Of other fleets: wires, and nothing else.
            .foreign_up =
                [this](session::Session& session) {
                  wires_.session_up(session.peer(), session.wire_secret(), session.is_initiator(),
                                    wire_addresses(fleet_, session), session.protocol());
                  network_.on_session_up(session.peer());
                },
            .foreign_request =
                [this](PeerRequest request, const nlohmann::json& body) {
                  network_.on_foreign_request(std::move(request), body);
                },
            .trust_ends =
                [this](const std::string& fleet, const std::optional<std::string>& port) {
                  network_.cut_foreign(fleet, port);
                },
            .tenant_of = [this](const std::string& port) { return network_.tenant_of(port); }};
  }

  const Config& config_;
  os::Loop loop_;
  std::unique_ptr<store::Store> store_;
  Events events_;
  WireThreads wires_;
  Network network_;
  Components components_;
  DeviceDriver device_;
  Fleet fleet_;
  Users users_;
  Images images_;
  Disks disks_;
  Vms vms_;
  VmNics nics_;
  Replicas replicas_;
  Bytes digest_key_;
  KnownMemory known_;
  Contents contents_;
  Volumes volumes_;
  Fabrics fabrics_;
  EndpointParts endpoint_;
  Relocations relocations_;
  Migrations migrations_;
  Mappings mappings_;
  Recordings recordings_;
  Audit audit_;
  ApiGate gate_;
  Metrics metrics_;
  http::Server server_;
  ApiForward forward_;
  os::Loop::Timer sweep_;
  bool disk_is_full_ = false;
  os::Loop::Timer late_;
};

}  // namespace
}  // namespace godwit::agent

// Keys are in our memory and must not come into a core file, nor into the hands of another process
// of our user (prctl(2); the kernel makes QEMU and hooks dumpable again when they start). Files
// that nobody said a mode for are ours alone.
void keep_secrets() {
  if (::prctl(PR_SET_DUMPABLE, 0) != 0)
    godwit::fail_setup("{}", godwit::errno_text("forbid core dumps"));
  ::umask(0077);
}

int main(int argc, char** argv) {
  try {
    keep_secrets();
    const auto config = godwit::agent::parse_command_line(argc, argv);
    spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
    spdlog::flush_on(spdlog::level::info);
    if (config.verbose) spdlog::set_level(spdlog::level::debug);
    std::signal(SIGPIPE, SIG_IGN);
    godwit::agent::Agent(config).run();
    return 0;
  } catch (const godwit::store::Lost& lost) {
    fmt::print(stderr, "godwitd: {}; vms go on running\n", lost.text);
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "godwitd: {}\n", error.what());
    return 1;
  }
}

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
#include "agent/host_parts.hh"
#include "base/result.hh"
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

// The parts, each after those that it uses. What they tell those above them goes through handlers,
// which are called from the loop, when all are there.
class Agent final {
 public:
  explicit Agent(const Config& config)
      : config_(with_directories(config)),
        store_(store::open_sqlite(config.store().string())),
        fleet_(loop_, config, *store_, events_, fleet_handlers()),
        host_({.loop = loop_,
               .config = config,
               .store = *store_,
               .peers = fleet_,
               .events = events_,
               .hosts_called = hosts_called(),
               .wire_control =
                   [this](const std::string& peer, const Bytes& message) {
                     (void)fleet_.push(peer, Fleet::kWireControl, message);  // down: said again
                   }}),
        users_(config, *store_, fleet_),
        audit_(config.audit()),
        gate_(
            audit_, [this](const std::string& serial) { return users_.is_revoked(serial); },
            [this] { return loop_.now(); }),
        metrics_({.loop = loop_, .config = config, .fleet = fleet_, .host = host_, .gate = gate_},
                 events_),
        server_(loop_),
        forward_(loop_, server_, fleet_, hosts_called()) {
    fleet_.online = [this](std::shared_ptr<os::UdpSocket> socket) {
      host_.wires.use_socket(std::move(socket));
    };
    host_.network.use_trust(fleet_.trust());
    users_.changed = [this] { cut_ended_users(); };
    events_.observe([this](std::string_view name, const nlohmann::json& data) {
      audit_migration(audit_, name, data);
      if (changes_contents(name, data)) host_.contents.look();
      if (moves_guests(name)) host_.mappings.look_soon();
      if (name == "port" && text_field_or(data, "event", "") == "removed") {
        host_.mappings.port_removed(text_field_or(data, "name", ""));
      }
    });
    serve_api();
    host_.network.path_changed = [this](const std::string& host) {
      fleet_.doubt(host);
      host_.migrations.doubt_lanes(host);
    };
    host_.wires.use_addresses(to_peer_addresses(fleet_.own_addresses()));
  }

  void run() {
    host_.start();
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
                         .store = *store_,
                         .events = events_,
                         .fleet = fleet_,
                         .host = host_,
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

  HostSearch::HostsCalled hosts_called() {
    return [this](const std::string& name) { return fleet_.hosts_called(name); };
  }

  Fleet::Handlers fleet_handlers() {
    return {
        .up =
            [this](session::Session& session) {
              host_.wires.session_up(session.peer(), session.wire_secret(), session.is_initiator(),
                                     wire_addresses(fleet_, session), session.protocol());
              host_.network.on_session_up(session.peer());
              host_.migrations.on_session_up(session.peer());
              host_.replicas.on_session_up(session.peer());
              host_.fabrics.on_session_up(session.peer());
              if (users_.revocations().empty()) return;
              const auto told = session.push(Users::kPush, {{"pem", users_.revocations()}});
              if (!told) spdlog::warn("host {}: {}", session.peer(), told.error().text);
            },
        .down = [this](const std::string& peer) { host_.wires.session_down(peer); },
        .request =
            [this](PeerRequest request, const nlohmann::json& body) {
              if (request.method.starts_with("migration.") ||
                  request.method.starts_with("component.") ||
                  request.method.starts_with("libvirt.")) {
                return host_.migrations.on_request(std::move(request), body);
              }
              if (request.method.starts_with("rule.")) {
                return host_.device.on_request(std::move(request), body);
              }
              if (request.method.starts_with("uplink.")) {
                return host_.relocations.on_request(std::move(request), body);
              }
              if (request.method.starts_with("flow.")) {
                return request.answer(
                    host_.endpoint.associations.answer(request.peer, request.method, body));
              }
              if (request.method.starts_with("endpoint.")) {
                return host_.endpoint.source.on_request(std::move(request), body);
              }
              if (request.method == "fabric.exchange") {
                return host_.fabrics.on_request(request, body);
              }
              if (request.method.starts_with("replica.")) {
                return host_.replicas.on_request(std::move(request), body);
              }
              if (request.method.starts_with("api.")) {
                return forward_.on_request(std::move(request), body);
              }
              host_.network.on_request(std::move(request), body);
            },
        .wire_control = [this](const std::string& peer,
                               BytesView message) { host_.wires.control(peer, to_bytes(message)); },
        .lane =
            [this](const std::string& peer, std::unique_ptr<os::ByteStream> lane) {
              host_.migrations.on_lane(peer, std::move(lane));
            },
        .api =
            [this](std::unique_ptr<session::TlsStream> stream) {
              http::Caller caller = caller_of(*stream);
              server_.serve(std::move(stream), std::move(caller));
            },
        .push =
            [this](const std::string& peer, const std::string& method, BytesView body) {
              if (method == kStatePush) {
                return host_.migrations.on_state(peer, body);
              }
              const auto json = nlohmann::json::parse(as_text(body), nullptr, false);
              if (method == Users::kPush) users_.learn(peer, text_field_or(json, "pem", ""));
            },
        .addresses_changed =
            [this] {
              host_.wires.use_addresses(to_peer_addresses(fleet_.own_addresses()));
              host_.wires.addresses_changed();
              for (const auto& peer : fleet_.up()) host_.migrations.doubt_lanes(peer);
            },
        // Of other fleets: wires, and nothing else.
        .foreign_up =
            [this](session::Session& session) {
              host_.wires.session_up(session.peer(), session.wire_secret(), session.is_initiator(),
                                     wire_addresses(fleet_, session), session.protocol());
              host_.network.on_session_up(session.peer());
            },
        .foreign_request =
            [this](PeerRequest request, const nlohmann::json& body) {
              host_.network.on_foreign_request(std::move(request), body);
            },
        .trust_ends =
            [this](const std::string& fleet, const std::optional<std::string>& port) {
              host_.network.cut_foreign(fleet, port);
            },
        .tenant_of = [this](const std::string& port) { return host_.network.tenant_of(port); }};
  }

  const Config& config_;
  os::Loop loop_;
  // Before there are other threads: these would not have them blocked.
  os::Loop::Watch signals_ = loop_.on_signals({SIGINT, SIGTERM}, [this](int signal) {
    spdlog::info("{}: ending; vms go on running", strsignal(signal));
    loop_.stop();
  });
  std::unique_ptr<store::Store> store_;
  Events events_;
  Fleet fleet_;
  HostParts host_;
  Users users_;
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

// The API's routes over in-memory connections, with the agent's real parts behind them: what is
// documented, who may do what, and what the tenants of others look like. No host is changed.
#include "agent/api.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "base/test_directory.hh"
#include "os/memory_stream.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;
using http::Access;
using http::Caller;
using http::Role;
using testing::HasSubstr;

Config config_in(const std::filesystem::path& directory) {
  Config config;
  config.name = "e1";
  config.addresses = {"192.0.2.1"};
  config.port = 0;  // a founder listens: anywhere
  config.state_dir = directory;
  config.run_dir = config.state_dir / "run";
  config.image_dir = config.state_dir / "images";
  config.disk_dir = config.state_dir / "disks";
  return config;
}

Caller user(Role role, std::string name, std::string tenant = {}) {
  return {.role = role,
          .name = std::move(name),
          .tenant = std::move(tenant),
          .from = "192.0.2.7:1",
          .serial = "01",
          .expires = 1LL << 40};
}

struct Answer {
  int status = 0;
  Json body;
  std::string text;
};

class ApiTest : public testing::Test {
 protected:
  ApiTest() {
    server_.use_gate([this](const http::Request& request, http::Responder& responder) {
      return gate_.admit(request, responder);
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
    host_.network.use_trust(fleet_.trust());
    fleet_.online = [](const std::shared_ptr<os::UdpSocket>&) {};
    for (const char* tenant : {"red", "blue"}) {
      qemu::VmSpec spec;
      spec.id.bytes[0] = std::byte{1};
      spec.name = std::string(tenant) + "-vm";
      spec.tenant = tenant;
      spec.machine = "pc-q35-7.2";
      spec.kernel = "/boot/vmlinuz";
      store_->put("vm", spec.name,
                  to_json(VmRecord{.spec = spec,
                                   .process = {.pid = 1, .start_time = 77},
                                   .stopped = "for this test",
                                   .arriving = {}}));
      EXPECT_TRUE(
          host_.network.add_port({{"name", std::string(tenant) + "-port"}, {"tenant", tenant}}));
    }
  }

  // One request on a connection of its own.
  Answer ask(const Caller& caller, const std::string& method, const std::string& path,
             const Json& body = nullptr, const std::string& field = {}) {
    os::MemoryLink link;
    const auto client = link.take_a();
    std::string received;
    client->start({.readable =
                       [&] {
                         std::array<std::byte, 4096> buffer;
                         while (const std::size_t got = client->read(buffer)) {
                           received += as_text(BytesView(buffer).first(got));
                         }
                       },
                   .writable = {},
                   .closed = {}});
    server_.serve(link.take_b(), caller);
    const std::string text = body.is_null() ? "" : body.dump();
    client->write(
        as_bytes(fmt::format("{} {} HTTP/1.1\r\nHost: e1\r\n{}Content-Length: {}\r\n\r\n{}", method,
                             path, field, text.size(), text)));
    const Instant deadline = loop_.now() + seconds(10);
    while (!received.contains("\r\n\r\n") && loop_.now() < deadline) {
      link.settle();
      loop_.run_once(milliseconds(1));
    }
    link.settle();
    server_.cut([](const Caller&) { return true; });
    Answer answer;
    if (received.size() > 12) answer.status = std::stoi(received.substr(9, 3));
    answer.text = received.substr(std::min(received.size(), received.find("\r\n\r\n") + 4));
    answer.body = Json::parse(answer.text, nullptr, false);
    return answer;
  }

  std::set<std::string> names(const Caller& caller, const std::string& path) {
    std::set<std::string> found;
    for (const auto& item : ask(caller, "GET", path).body) found.insert(item.value("name", ""));
    return found;
  }

  const TestDirectory directory_;
  const Config config_ = config_in(directory_.path());
  os::Loop loop_;
  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  Events events_;
  Fleet fleet_{loop_, config_, *store_, events_, {}};
  HostParts host_{{.loop = loop_,
                   .config = config_,
                   .store = *store_,
                   .peers = fleet_,
                   .events = events_,
                   .hosts_called = [](auto&&) { return std::vector<std::string>(); },
                   .wire_control = [](auto&&...) {}}};
  Users users_{config_, *store_, fleet_};
  Audit audit_{config_.audit()};
  bool revoked_ = false;
  Instant now_{};
  ApiGate gate_{audit_, [this](const std::string&) { return revoked_; }, [this] { return now_; }};
  Metrics metrics_{
      {.loop = loop_, .config = config_, .fleet = fleet_, .host = host_, .gate = gate_}, events_};
  http::Server server_{loop_};

  const Caller root_{
      .role = Role::root, .name = "uid 0", .tenant = {}, .from = "pid 1", .serial = {}};
  const Caller all_ = user(Role::operator_, "olga");
  const Caller red_ = user(Role::operator_, "rita", "red");
  const Caller viewer_ = user(Role::viewer, "vera");
};

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

const char* to_text(Access access) {
  return access == Access::root ? "root" : access == Access::change ? "change" : "read";
}

TEST_F(ApiTest, EveryRouteIsDocumentedAndEveryDocumentedOneIsThere) {
  const Json document = Json::parse(kOpenApiDocument);
  EXPECT_EQ(document["openapi"], "3.1.0");
  std::set<std::string> documented, routed;
  for (const auto& [path, operations] : document["paths"].items()) {
    for (const auto& [method, operation] : operations.items()) {
      documented.insert(
          fmt::format("{} {} {}", method, path, operation["x-access"].get<std::string>()));
    }
  }
  for (const auto& entry : server_.router().entries()) {
    routed.insert(
        fmt::format("{} {} {}", lower(entry.method), entry.pattern, to_text(entry.access)));
  }
  EXPECT_EQ(documented, routed);
  EXPECT_GT(routed.size(), 20u);
  EXPECT_EQ(ask(viewer_, "GET", "/v1/openapi.json").body, document);
}

// Whatever a route does: who may not use it is stopped before.
TEST_F(ApiTest, RolesDecideWhichRoutesMayBeUsed) {
  for (const auto& entry : server_.router().entries()) {
    std::string path = entry.pattern;
    for (const char* name : {"{name}", "{id}"}) {
      if (const auto at = path.find(name); at != std::string::npos) {
        path.replace(at, std::string(name).size(), "nothing");
      }
    }
    for (const auto& caller : {viewer_, all_}) {
      now_ += seconds(10);  // not a matter of its rate
      const int status = ask(caller, entry.method, path, Json::object()).status;
      EXPECT_EQ(status == 403, !http::permits(caller.role, entry.access))
          << caller.name << " " << entry.method << " " << path << " " << status;
    }
  }
}

TEST_F(ApiTest, RulesOfDevicesAreForThoseOfEveryTenant) {
  EXPECT_EQ(ask(viewer_, "GET", "/v1/rules").body, Json::array());
  EXPECT_EQ(ask(viewer_, "GET", "/v1/fleet-rules").body,
            (Json{{"rules", Json::array()}, {"silent", Json::array()}}));
  EXPECT_EQ(
      ask(all_, "POST", "/v1/rules/prune", {{"guest", "nobody"}}).body,
      (Json{{"hosts", {{{"host", "e1"}, {"removed", Json::array()}}}}, {"silent", Json::array()}}));
  EXPECT_EQ(ask(all_, "POST", "/v1/rules/prune", {{"guest", 7}}).status, 400);
  for (const char* path : {"/v1/rules", "/v1/fleet-rules", "/v1/rules/verify"}) {
    EXPECT_EQ(ask(red_, "GET", path).status, 403) << path;
  }
  EXPECT_EQ(ask(red_, "POST", "/v1/rules/prune", Json::object()).status, 403);
}

TEST_F(ApiTest, OtherTenantsAreAbsent) {
  EXPECT_EQ(names(red_, "/v1/vms"), (std::set<std::string>{"red-vm"}));
  EXPECT_EQ(names(all_, "/v1/vms"), (std::set<std::string>{"red-vm", "blue-vm"}));
  EXPECT_EQ(names(red_, "/v1/ports"), (std::set<std::string>{"red-port"}));
  // The same answers as for what does not exist.
  for (const auto& [method, tail] : {std::pair("GET", ""), {"DELETE", ""}, {"POST", "/stop"}}) {
    const auto absent = ask(red_, method, std::string("/v1/vms/no-vm") + tail);
    auto other = ask(red_, method, std::string("/v1/vms/blue-vm") + tail);
    EXPECT_EQ(other.status, 404) << method;
    EXPECT_EQ(absent.status, 404) << method;
    EXPECT_THAT(other.text, HasSubstr("there is no vm 'blue-vm' on host e1"));
  }
  EXPECT_EQ(ask(red_, "DELETE", "/v1/ports/blue-port").status, 200);  // as what is not there
  EXPECT_EQ(names(all_, "/v1/ports"), (std::set<std::string>{"red-port", "blue-port"}));
  EXPECT_EQ(ask(red_, "DELETE", "/v1/ports/red-port").status, 200);
  EXPECT_EQ(names(all_, "/v1/ports"), (std::set<std::string>{"blue-port"}));
  const auto move = ask(red_, "POST", "/v1/migrations", {{"vm", "blue-vm"}, {"to", "w1"}});
  EXPECT_THAT(move.text, HasSubstr("there is no running vm 'blue-vm'"));
}

TEST_F(ApiTest, WiresOfOtherTenantsCannotBeMade) {
  ASSERT_TRUE(host_.network.add_port({{"name", "red-2"}, {"tenant", "red"}}));
  ASSERT_TRUE(host_.network.add_port({{"name", "blue-2"}, {"tenant", "blue"}}));
  const Json blues = {{"a", "blue-port"}, {"b", "blue-2"}},
             reds = {{"a", "red-port"}, {"b", "red-2"}};
  EXPECT_THAT(ask(red_, "POST", "/v1/wires", blues).text,
              HasSubstr("there is no port 'blue-port'"));
  EXPECT_EQ(ask(all_, "POST", "/v1/wires", blues).status, 200);
  EXPECT_EQ(ask(red_, "POST", "/v1/wires", reds).status, 200);
  EXPECT_EQ(ask(red_, "GET", "/v1/wires").body.size(), 1u);
  EXPECT_EQ(ask(all_, "GET", "/v1/wires").body.size(), 2u);
  EXPECT_THAT(ask(red_, "DELETE", "/v1/wires", blues).text, HasSubstr("there is no port"));
  EXPECT_EQ(ask(all_, "GET", "/v1/wires").body.size(), 2u);
  const auto metrics = ask(red_, "GET", "/metrics").text;
  EXPECT_THAT(metrics, HasSubstr("tenant=\"red\""));
  EXPECT_THAT(metrics, testing::Not(HasSubstr("blue")));
}

TEST_F(ApiTest, WhatATenantsOperatorMakesIsTheTenants) {
  EXPECT_EQ(ask(red_, "POST", "/v1/ports", {{"name", "p"}}).body["tenant"], "red");
  EXPECT_EQ(ask(red_, "POST", "/v1/ports", {{"name", "q"}, {"tenant", "blue"}}).status, 403);
  EXPECT_EQ(ask(red_, "POST", "/v1/vms", {{"name", "q"}, {"tenant", "blue"}}).status, 403);
  // The host's own networks are not a tenant's.
  EXPECT_EQ(ask(red_, "POST", "/v1/ports", {{"name", "u"}, {"kind", "uplink"}}).status, 403);
  EXPECT_EQ(
      ask(red_, "POST", "/v1/ports", {{"name", "b"}, {"kind", "bridge"}, {"bridge", "br0"}}).status,
      403);
}

TEST_F(ApiTest, RemoteUsersBootFilesOfTheImageDirectoryOnly) {
  std::filesystem::create_directories(config_.image_dir / "red");
  std::filesystem::create_directories(config_.image_dir / "blue");
  const auto file = [&](const char* name) {
    std::ofstream(config_.image_dir / name) << "kernel";
    return (config_.image_dir / name).string();
  };
  const std::string own = file("red/vmlinuz"), shared = file("vmlinuz"),
                    other = file("blue/vmlinuz");
  std::filesystem::create_symlink("/etc/hostname", config_.image_dir / "red/link");
  const auto status = [&](const Caller& caller, const std::string& path) {
    const auto answer = ask(caller, "POST", "/v1/vms", {{"name", "vm"}, {"kernel", path}});
    return answer.status;
  };
  for (const std::string& path :
       {std::string("/etc/hostname"), other, shared, (config_.image_dir / "red/link").string(),
        (config_.image_dir / "red/../blue/vmlinuz").string(), (config_.image_dir / "red").string(),
        (config_.image_dir / "red/none").string()}) {
    EXPECT_EQ(status(red_, path), 403) << path;
  }
  EXPECT_EQ(status(all_, "/etc/hostname"), 403);
  // Not a matter of the place any more: there is no usable accelerator in this test.
  EXPECT_NE(status(red_, own), 403);
  EXPECT_NE(status(all_, shared), 403);
  EXPECT_NE(status(root_, "/etc/hostname"), 403);
}

// QEMU would speak to whatever this host reaches.
TEST_F(ApiTest, OneTenantsUsersNameNoServers) {
  const Json volume = {{"name", "vm"},
                       {"disks", {{{"name", "data"}, {"uri", "nbd://127.0.0.1/x"}}}}};
  EXPECT_EQ(ask(red_, "POST", "/v1/vms", volume).status, 403);
  for (const Caller& caller : {all_, root_}) {
    const auto answer = ask(caller, "POST", "/v1/vms", volume);
    EXPECT_EQ(answer.status, 409) << answer.text;
    EXPECT_THAT(answer.text, HasSubstr("nbd://127.0.0.1/x"));  // there is no server
  }
}

TEST_F(ApiTest, AnotherTenantsImageIsAbsentUnlessItIsPublic) {
  std::filesystem::create_directories(config_.library());
  // QEMU's user, who looks at images, passes through.
  std::filesystem::permissions(directory_.path(), std::filesystem::perms(0711));
  host_.images.start(
      [](const std::string&) { return std::vector<std::string>{"red-vm", "blue-vm"}; });
  const auto source = (config_.state_dir / "disk").string();
  std::ofstream(source) << "content";
  for (const auto& [name, tenant, is_public] :
       {std::tuple("reds", "red", false), {"blues", "blue", false}, {"all", "blue", true}}) {
    const Json wish = {{"name", name}, {"file", source}, {"tenant", tenant}, {"public", is_public}};
    ASSERT_EQ(ask(root_, "POST", "/v1/images", wish).status, 202);
    ASSERT_TRUE(
        os::run_until(loop_, [&] { return host_.images.usable(name, tenant).has_value(); }));
  }
  EXPECT_EQ(names(red_, "/v1/images"), (std::set<std::string>{"all", "reds"}));
  EXPECT_EQ(names(all_, "/v1/images"), (std::set<std::string>{"all", "blues", "reds"}));
  EXPECT_EQ(ask(red_, "GET", "/v1/images/all").body["used_by"], Json({"red-vm"}));
  EXPECT_EQ(ask(all_, "GET", "/v1/images/all").body["used_by"], Json({"red-vm", "blue-vm"}));
  for (const auto& [method, tail] : {std::pair("DELETE", ""), {"POST", "/verify"}}) {
    EXPECT_EQ(ask(red_, method, std::string("/v1/images/blues") + tail).status, 404);
    EXPECT_EQ(ask(red_, method, std::string("/v1/images/all") + tail).status, 403);
  }
  const auto used = ask(red_, "DELETE", "/v1/images/reds");
  EXPECT_EQ(used.status, 409);
  EXPECT_THAT(used.text, testing::Not(HasSubstr("blue-vm")));
  EXPECT_THAT(ask(all_, "DELETE", "/v1/images/all").text, HasSubstr("red-vm, blue-vm"));
  EXPECT_EQ(ask(red_, "POST", "/v1/images", {{"name", "own"}, {"file", source}}).status, 403)
      << "not in the image directory";
}

TEST_F(ApiTest, AUserThatAsksTooOftenIsToldToWait) {
  int taken = 0, limited = 0;
  std::string last;
  for (int i = 0; i < 100; ++i) {
    const auto answer = ask(all_, "GET", "/v1/hosts");
    answer.status == 429 ? ++limited : ++taken;
  }
  EXPECT_EQ(taken, 60) << "the burst";
  EXPECT_EQ(limited, 40);
  EXPECT_EQ(ask(viewer_, "GET", "/v1/hosts").status, 200) << "another user has its own";
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ask(root_, "GET", "/v1/hosts").status, 200);
  now_ += seconds(1);
  taken = 0;
  for (int i = 0; i < 30; ++i) taken += ask(all_, "GET", "/v1/hosts").status == 200 ? 1 : 0;
  EXPECT_EQ(taken, 20) << "the rate";
}

TEST_F(ApiTest, ABatchIsManyRequests) {
  const auto batch = [&](const Caller& caller, const Json& requests) {
    return ask(caller, "POST", "/v1/batch", {{"requests", requests}});
  };
  const auto add = [](const std::string& name) {
    return Json{{"method", "POST"}, {"path", "/v1/ports"}, {"body", {{"name", name}}}};
  };
  const Json hosts = {{"method", "GET"}, {"path", "/v1/hosts"}};
  Json many = Json::array();
  for (int i = 0; i < 1000; ++i) many.push_back(add(fmt::format("p{}", i)));
  many.push_back({{"method", "POST"}, {"path", "/v1/wires"}, {"body", {{"a", "p1"}, {"b", "p2"}}}});
  many.push_back({{"method", "GET"}, {"path", "/v1/wires"}});
  many.push_back({{"method", "DELETE"}, {"path", "/v1/ports/p1"}});
  many.push_back({{"method", "GET"}, {"path", "/v1/vms/none"}});
  const auto answer = batch(red_, many);
  ASSERT_EQ(answer.body.size(), many.size());
  for (std::size_t i = 0; i < 1000; ++i)
    EXPECT_EQ(answer.body[i]["body"]["name"], fmt::format("p{}", i));
  EXPECT_EQ(answer.body[1000]["status"], 200);
  EXPECT_EQ(answer.body[1001]["body"].size(), 1u);
  EXPECT_EQ(answer.body[1002]["status"], 409);
  EXPECT_EQ(answer.body[1003]["status"], 404);
  EXPECT_EQ(store_->list("port").size(), 1002u);
  // By its own role and tenant, with an entry for each.
  EXPECT_EQ(batch(viewer_, Json::array({add("q")})).body[0]["status"], 403);
  EXPECT_EQ(batch(viewer_, Json::array({hosts})).body[0]["status"], 200);
  EXPECT_EQ(ask(root_, "GET", "/v1/audit").body.size(), 1003u);
  Json nested = hosts;
  nested["path"] = "/v1/batch";
  for (const Json& bad :
       {Json::array(), Json(7), Json::array({{{"path", "/v1/hosts"}}}), Json::array({nested})}) {
    EXPECT_EQ(batch(all_, bad).status, 400) << bad.dump().substr(0, 100);
  }
}

TEST_F(ApiTest, ARevokedOrExpiredCertificateIsRefused) {
  Caller late = all_;
  late.expires = 1000;
  EXPECT_EQ(ask(late, "GET", "/v1/hosts").status, 401);
  EXPECT_EQ(ask(all_, "GET", "/v1/hosts").status, 200);
  revoked_ = true;
  EXPECT_EQ(ask(all_, "GET", "/v1/hosts").status, 401);
  EXPECT_EQ(ask(root_, "GET", "/v1/hosts").status, 200);
}

TEST_F(ApiTest, TheAuditLogSaysWhoDidWhat) {
  ask(red_, "POST", "/v1/ports", {{"name", "p"}});
  ask(all_, "DELETE", "/v1/vms/none");
  ask(root_, "POST", "/v1/join", {{"target", "SECRETSECRET@192.0.2.9"}});
  ask(red_, "GET", "/v1/ports");
  for (int i = 0; i < 20; ++i) ask(viewer_, "DELETE", "/v1/ports/p");
  const auto entries = ask(root_, "GET", "/v1/audit").body;
  ASSERT_EQ(entries.size(), 4u) << entries.dump(1);
  EXPECT_EQ(entries[0]["who"], "rita");
  EXPECT_EQ(entries[0]["role"], "operator");
  EXPECT_EQ(entries[0]["tenant"], "red");
  EXPECT_EQ(entries[0]["from"], "192.0.2.7:1");
  EXPECT_EQ(entries[0]["certificate"], "01");
  EXPECT_EQ(entries[0]["did"], "POST /v1/ports");
  EXPECT_EQ(entries[0]["on"]["name"], "p");
  EXPECT_EQ(entries[0]["status"], 200);
  EXPECT_EQ(entries[1]["status"], 404);
  EXPECT_THAT(entries[1]["error"].get<std::string>(), HasSubstr("there is no vm 'none'"));
  EXPECT_EQ(entries[2]["who"], "uid 0");
  EXPECT_EQ(entries[3]["who"], "vera") << "once, not twenty times";
  EXPECT_EQ(entries[3]["status"], 403);
  std::ifstream file(config_.audit());
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  EXPECT_FALSE(all.contains("SECRET")) << all;
  EXPECT_EQ(ask(red_, "GET", "/v1/audit").body.size(), 1u);
}

TEST_F(ApiTest, EventsGoOnWhereTheyWere) {
  const auto events = [&](const Caller& caller, const std::string& after) {
    return ask(caller, "GET", "/v1/events", nullptr,
               after.empty() ? "" : "Last-Event-ID: " + after + "\r\n")
        .text;
  };
  const auto id_of = [&](std::string_view text) {
    const std::size_t at = text.find("id: ") + 4;
    return std::string(text.substr(at, text.find('\n', at) - at));
  };
  // From another run: everything may have been missed.
  const std::string missed = events(all_, "0badf00d-1");
  EXPECT_THAT(missed, HasSubstr("event: missed"));
  const std::string here = id_of(missed);
  ASSERT_TRUE(host_.network.add_port({{"name", "red-2"}, {"tenant", "red"}}));
  ASSERT_TRUE(host_.network.add_port({{"name", "blue-2"}, {"tenant", "blue"}}));
  const std::string both = events(all_, here);
  EXPECT_THAT(both, HasSubstr("red-2"));
  EXPECT_THAT(both, HasSubstr("blue-2"));
  EXPECT_THAT(both, testing::Not(HasSubstr("missed")));
  const std::string reds = events(red_, here);
  EXPECT_THAT(reds, HasSubstr("red-2"));
  EXPECT_THAT(reds, testing::Not(HasSubstr("blue-2")));
  EXPECT_THAT(events(all_, id_of(both)), testing::Not(HasSubstr("red-2"))) << "behind the first";
  EXPECT_THAT(events(all_, id_of(both)), HasSubstr("blue-2"));
  for (std::size_t i = 0; i <= Events::kKept; ++i) events_.publish("host", {{"name", "w1"}});
  EXPECT_THAT(events(all_, here), HasSubstr("event: missed"));
}

TEST_F(ApiTest, UsersAreCertifiedAndRevoked) {
  const auto key = crypto::PrivateKey::make();
  const Json wish = {{"name", "ann"},
                     {"role", "operator"},
                     {"tenant", "red"},
                     {"csr", crypto::CertificateRequest::make(key, "root").pem()}};
  const auto made = ask(root_, "POST", "/v1/users", wish);
  ASSERT_EQ(made.status, 201) << made.text;
  const auto certificate =
      crypto::Certificate::from_pem(made.body["certificate"].get<std::string>());
  ASSERT_TRUE(certificate);
  EXPECT_EQ(certificate->user().value(), (crypto::User{"ann", crypto::UserRole::operator_, "red"}));
  EXPECT_EQ(made.body["hosts"]["e1"][0], "192.0.2.1:0");
  for (const auto& [key_, value] : {std::pair("role", "root"),
                                    {"tenant", "Not A Name"},
                                    {"csr", "x"},
                                    {"ttl", "9000h"},
                                    {"name", "../ann"}}) {
    Json bad = wish;
    bad[key_] = value;
    EXPECT_EQ(ask(root_, "POST", "/v1/users", bad).status, 409) << key_;
  }
  const std::string serial = certificate->serial();
  EXPECT_FALSE(users_.is_revoked(serial));
  EXPECT_EQ(ask(root_, "DELETE", "/v1/users/ann").status, 200);
  EXPECT_TRUE(users_.is_revoked(serial));
  EXPECT_EQ(ask(root_, "GET", "/v1/users").body[0]["revoked"], true);
  // It is known after a restart, and to whoever gets the list.
  Users again(config_, *store_, fleet_);
  again.start();
  EXPECT_TRUE(again.is_revoked(serial));
  EXPECT_EQ(ask(root_, "DELETE", "/v1/users/nobody").status, 200);
}

}  // namespace
}  // namespace godwit::agent

#pragma once
// What hosts say about guests whose correspondents are behind this one, and what the kernel does
// then: in a network namespace of the test's own; needs root, or is skipped.
//
//   home: 10.66.1.20 ── was there ──┐                            ┌── 10.66.3.10, a guest
//   f1, f2: 10.66.2.192/26 ── is there ──  [ q1, 10.66.3.1 ] ────┘
//   x1: 10.66.4.0/24, of another guest
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/associations.hh"
#include "agent/connection_list.hh"
#include "agent/connection_testing.hh"
#include "crypto/keyed_hash.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/nftables.hh"
#include "store/disk.hh"

namespace godwit::agent {

using nlohmann::json;
using testing::HasSubstr;

inline const std::string kGuest = "00112233445566778899aabbccddeeff", kOtherGuest(32, '0');
inline const Bytes kSecret(crypto::KeyedHash::kKeySize, std::byte{0x42});
inline const Bytes kNextSecret(crypto::KeyedHash::kKeySize, std::byte{0x43});
inline Ip ip(std::string_view text) { return parse_ip(text).value(); }
inline const Ip kP = ip("10.66.1.20"), kQ = ip("10.66.3.10"), kOwn = ip("10.66.3.1");
inline const Ip kElsewhere = ip("10.66.5.10"), kOthers = ip("10.66.4.20");
inline const std::map<Ip, Ip> kWay{{kP, ip("10.66.2.200")}}, kNextWay{{kP, ip("10.66.2.201")}};
inline const std::map<Ip, Ip> kOthersWay{{kOthers, ip("10.66.2.210")}};

class NoPeers final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string&) const override { return false; }
  std::vector<std::string> up() const override { return {}; }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return 0; }
  void request(const std::string&, const std::string&, const json&, Reply reply,
               Nanoseconds) override {
    reply(fail("no session"));
  }
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

 private:
  std::string self_ = "q1";
};

inline json edge(const char* network, const json& hosts) {
  return {{"tier", "edge"}, {"up", {"core"}}, {"networks", {network}}, {"hosts", hosts}};
}

inline json fabric_file() {
  json abroad = edge("10.66.2.0/24", {"f1", "f2"});
  abroad["networks"].push_back("fd67:2::/64");
  abroad["locators"] = {"10.66.2.192/26", "fd67:2::ffff:0/112"};
  json home = edge("10.66.1.0/24", {"home", "home2"});
  home["networks"].push_back("fd67:1::/64");
  return {{"name", "lab"},
          {"tiers", {"edge", "core"}},
          {"devices",
           {{"core", {{"tier", "core"}, {"outside", true}}},
            {"at-home", home},
            {"abroad", abroad},
            {"here", edge("10.66.3.0/24", {"q1"})},
            {"others", edge("10.66.4.0/24", {"x1"})}}}};
}

inline void without_handles(json& value) {
  if (value.is_object()) {
    value.erase("handle");
    if (value.contains("elem")) std::ranges::sort(value["elem"].get_ref<json::array_t&>());
  }
  if (value.is_structured()) {
    for (auto& each : value) without_handles(each);
  }
}

// All rules of the namespace, and all that is tracked of those behind this host.
struct Kernel {
  json rules;
  std::vector<os::Connection> connections;
  bool operator==(const Kernel&) const = default;
};

struct AssociationsTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    netns.emplace(os::NetNamespace::create());
    netns->run([&] {
      os::Netlink netlink;
      netlink.add_veth("rack", "far");
      for (const char* each : {"10.66.3.1/24", "fd67:3::1/64"}) netlink.add_address("rack", each);
      for (const char* each : {"lo", "rack", "far"}) netlink.set_up(each);
      const auto made = network.add_port(
          {{"name", "web"}, {"kind", "uplink"}, {"guest_addresses", {kQ.text(), "fd67:3::10"}}});
      ASSERT_TRUE(made) << made.error().text;
    });
    ASSERT_TRUE(fabrics.set(fabric_file()));
    start();
  }
  void TearDown() override {
    if (netns) netns->run([&] { ASSERT_TRUE(network.remove_port("web", {})); });
  }
  // As the agent was started again, on what its store has.
  void start() {
    netns->run([&] {
      start_associations();
      kernel->start();
    });
  }
  void start_associations() {
    associations.reset();
    kernel.emplace(loop, network, *store);
    associations.emplace(Associations::Context{.config = config,
                                               .store = *store,
                                               .network = network,
                                               .kernel = *kernel,
                                               .fabrics = fabrics,
                                               .events = events});
    associations->start();
  }
  void forget_fabric() { ASSERT_TRUE(fabrics.set(nullptr)); }

  // ---- what is asked ----

  Result<json> ask(const std::string& peer, const std::string& method, const json& body) {
    return netns->run([&] { return associations->answer(peer, method, body); });
  }
  void expect_done(const std::string& peer, const std::string& method, const json& body) {
    const auto answer = ask(peer, method, body);
    ASSERT_TRUE(answer) << answer.error().text;
  }
  static json stage(const std::vector<os::Connection>& connections = {connection(kP, kQ, 5000)},
                    Epoch epoch = 7, const Bytes& secret = kSecret,
                    const std::map<Ip, Ip>& way = kWay, const std::string& guest = kGuest) {
    return {{"guest", guest},
            {"name", "db"},
            {"epoch", epoch},
            {"secret", to_hex(secret)},
            {"on_the_way", to_json(way)},
            {"connections", to_json(connections, secret)}};
  }
  static json proved(const std::string& what, const std::string& peer, Epoch epoch = 7,
                     const Bytes& secret = kSecret, const std::map<Ip, Ip>& way = kWay,
                     const std::string& guest = kGuest) {
    return {{"guest", guest},
            {"epoch", epoch},
            {"proof", proof_of(secret, what, guest, epoch, peer, way)},
            {"connections", json::array()}};
  }
  static json update(const std::string& peer, Epoch epoch = 7, const Bytes& secret = kSecret,
                     const std::map<Ip, Ip>& way = kWay, const std::string& guest = kGuest) {
    return proved("update", peer, epoch, secret, way, guest);
  }
  void move() {
    expect_done("home", "flow.stage", stage());
    expect_done("f1", "flow.update", update("f1"));
  }
  // Of the same guest, which was home again meanwhile.
  void move_again() {
    expect_done("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay));
    expect_done("f2", "flow.update", update("f2", 8, kNextSecret, kNextWay));
  }

  // ---- what is so then ----

  Kernel now() {
    return netns->run([] {
      Kernel found{.rules = json::parse(os::query_nftables("list ruleset").value()),
                   .connections = os::connections_of({kQ, kOwn, kElsewhere, ip("fd67:3::10")})};
      without_handles(found.rules);
      for (auto& each : found.connections) each.timeout_s = 0;
      return found;
    });
  }
  // "moved" or "coming": [ends, becomes].
  std::set<json> elements(const std::string& map) {
    std::set<json> found;
    const Kernel all = now();
    for (const auto& each : all.rules["nftables"]) {
      if (!each.contains("map") || each["map"]["table"] != "godwit_endpoint") continue;
      if (each["map"]["name"] != map + '4' && each["map"]["name"] != map + '6') continue;
      for (const auto& element : each["map"].value("elem", json::array())) found.insert(element);
    }
    return found;
  }
  static json element(const Ip& from, const Ip& to, const Ip& becomes) {
    return {{{"concat", {from.text(), to.text()}}}, becomes.text()};
  }
  std::set<json> moved() { return elements("moved"); }
  std::set<json> coming() { return elements("coming"); }
  // The ports at those behind this host, of connections that are redirected if anything is.
  std::set<std::pair<Ip, std::uint16_t>> labelled() {
    std::set<std::pair<Ip, std::uint16_t>> found;
    for (const auto& each : now().connections) {
      if ((each.mark & os::kLabelledMark) != 0) found.emplace(each.guest, each.guest_port);
    }
    return found;
  }
  void track(const os::Connection& each) {
    netns->run([&] { ASSERT_TRUE(os::add_connections({seen_by_peer(each)})); });
  }
  json documents() {
    json all = json::array();
    for (const auto& each : store->list("association")) all.push_back({each.key, each.body});
    return all;
  }
  void expect_refused(const std::string& peer, const std::string& method, const json& body,
                      const char* why) {
    const Kernel before = now();
    const json stored = documents(), described = associations->describe();
    const auto answer = ask(peer, method, body);
    ASSERT_FALSE(answer) << peer << ": " << method << " " << body;
    EXPECT_THAT(answer.error().text, HasSubstr(why));
    EXPECT_EQ(now(), before) << peer << ": " << method << " " << body;
    EXPECT_EQ(documents(), stored);
    EXPECT_EQ(associations->describe(), described);
  }

  std::optional<os::NetNamespace> netns;
  Config config = [] {
    Config made;
    made.name = "q1";
    return made;
  }();
  os::Loop loop;
  std::shared_ptr<store::MemoryDisk> disk = std::make_shared<store::MemoryDisk>();
  std::unique_ptr<store::Store> store = store::open_on(disk);
  Events events;
  NoPeers peers;
  WireThreads wires{loop, "q1", {}, {.control = [](auto&&...) {}, .event = [](auto&&...) {}}};
  Network network{loop, config, *store, wires, events};
  Fabrics fabrics{*store, peers, events};
  std::optional<EndpointKernel> kernel;
  std::optional<Associations> associations;
};

}  // namespace godwit::agent

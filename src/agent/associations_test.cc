// What hosts say about guests whose correspondents are behind this one, and what the kernel does
// then: in a network namespace of the test's own; needs root, or is skipped.
//
//   home: 10.66.1.20 ── was there ──┐                            ┌── 10.66.3.10, a guest
//   f1, f2: 10.66.2.192/26 ── is there ──  [ q1, 10.66.3.1 ] ────┘
//   x1: 10.66.4.0/24, of another guest
#include "agent/associations.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "agent/connection_list.hh"
#include "crypto/keyed_hash.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/nftables.hh"
#include "store/disk.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const std::string kGuest = "00112233445566778899aabbccddeeff", kOtherGuest(32, '0');
const Bytes kSecret(crypto::KeyedHash::kKeySize, std::byte{0x42});
const Bytes kNextSecret(crypto::KeyedHash::kKeySize, std::byte{0x43});
Ip ip(std::string_view text) { return parse_ip(text).value(); }
const Ip kP = ip("10.66.1.20"), kQ = ip("10.66.3.10"), kOwn = ip("10.66.3.1");
const Ip kElsewhere = ip("10.66.5.10"), kOthers = ip("10.66.4.20");
const std::map<Ip, Ip> kWay{{kP, ip("10.66.2.200")}}, kNextWay{{kP, ip("10.66.2.201")}};
const std::map<Ip, Ip> kOthersWay{{kOthers, ip("10.66.2.210")}};

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

json edge(const char* network, const json& hosts) {
  return {{"tier", "edge"}, {"up", {"core"}}, {"networks", {network}}, {"hosts", hosts}};
}

json fabric_file() {
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

// As its guest sees it.
os::Connection connection(const Ip& guest, const Ip& peer, std::uint16_t peer_port) {
  return {.protocol = IPPROTO_TCP,
          .guest = guest,
          .peer = peer,
          .guest_port = 22,
          .peer_port = peer_port,
          .replied = true,
          .assured = true,
          .state = 3,
          .timeout_s = 400000};
}

void without_handles(json& value) {
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
    kernel.emplace(loop, network);
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

// ---- as it goes ----

TEST_F(AssociationsTest, WhatIsAgreedIsRedirectedOnceTheGuestIsThere) {
  const Kernel untouched = now();
  const auto staged =
      ask("home", "flow.stage", stage({connection(kP, kQ, 5000), connection(kP, kOwn, 5001)}));
  ASSERT_TRUE(staged) << staged.error().text;
  EXPECT_EQ(*staged, (json{{"labelled", 2}}));
  const Ip way = kWay.at(kP);
  EXPECT_EQ(moved(), std::set<json>());
  EXPECT_EQ(coming(), (std::set<json>{element(way, kQ, kP), element(way, kOwn, kP)}));
  EXPECT_EQ(labelled(), (std::set<std::pair<Ip, std::uint16_t>>{{kQ, 5000}, {kOwn, 5001}}));
  // One that began meanwhile.
  json later = update("f1");
  later["connections"] = to_json({connection(kP, kQ, 5002)}, kSecret);
  const auto updated = ask("f1", "flow.update", later);
  ASSERT_TRUE(updated) << updated.error().text;
  EXPECT_EQ(*updated, (json{{"correspondents", {kOwn.text(), kQ.text()}}}));
  EXPECT_EQ(moved(), (std::set<json>{element(kQ, kP, way), element(kOwn, kP, way)}));
  EXPECT_EQ(coming(), (std::set<json>{element(way, kQ, kP), element(way, kOwn, kP)}));
  EXPECT_EQ(labelled().size(), 3U);
  EXPECT_EQ(associations->describe()[0], (json{{"guest", "db"},
                                               {"host", "f1"},
                                               {"correspondents", {kOwn.text(), kQ.text()}},
                                               {"direct", true}}));
  expect_done("f1", "flow.end", proved("end", "f1"));
  EXPECT_EQ(now().rules, untouched.rules);
  EXPECT_EQ(documents(), json::array());
  expect_done("f1", "flow.end", proved("end", "f1"));  // repeated
}

TEST_F(AssociationsTest, OfBothFamiliesEachHasItsOwn) {
  const Ip p6 = ip("fd67:1::20"), q6 = ip("fd67:3::10"), way6 = ip("fd67:2::ffff:1");
  const std::map<Ip, Ip> both{{kP, kWay.at(kP)}, {p6, way6}};
  expect_done("home", "flow.stage",
              stage({connection(kP, kQ, 5000), connection(p6, q6, 5006)}, 7, kSecret, both));
  expect_done("f1", "flow.update", update("f1", 7, kSecret, both));
  EXPECT_EQ(moved(), (std::set<json>{element(kQ, kP, kWay.at(kP)), element(q6, p6, way6)}));
  EXPECT_EQ(labelled().size(), 2U);
}

TEST_F(AssociationsTest, ThoseWhoAreNotHereAreNotRedirected) {
  const auto elsewhere = connection(kP, kElsewhere, 5001);
  track(elsewhere);
  expect_refused("home", "flow.stage", stage({elsewhere}), "none of these connections");
  expect_refused("home", "flow.stage", stage({}), "none of these connections");
  const auto staged = ask("home", "flow.stage", stage({elsewhere, connection(kP, kQ, 5000)}));
  ASSERT_TRUE(staged) << staged.error().text;
  EXPECT_EQ(*staged, (json{{"labelled", 1}}));
  json all = update("f1");
  all["connections"] = to_json({elsewhere, connection(kP, kQ, 5000)}, kSecret);
  EXPECT_EQ(ask("f1", "flow.update", all).value(), (json{{"correspondents", {kQ.text()}}}));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
  EXPECT_EQ(labelled(), (std::set<std::pair<Ip, std::uint16_t>>{{kQ, 5000}}));
  EXPECT_EQ(ask("home", "flow.serves",
                {{"addresses", {kQ.text(), kElsewhere.text(), kOwn.text(), "x", 7, nullptr}}})
                .value(),
            (json{{"addresses", {kOwn.text(), kQ.text()}}}));
}

TEST_F(AssociationsTest, ConnectionsThatWereNotAgreedStayAsTheyAre) {
  for (const auto& each : {connection(kP, kQ, 5000), connection(kP, kQ, 5001)}) track(each);
  move();
  EXPECT_EQ(labelled(), (std::set<std::pair<Ip, std::uint16_t>>{{kQ, 5000}}));
}

// ---- who may agree ----

TEST_F(AssociationsTest, OnlyWhereItIsAtHomeItIsStaged) {
  for (const char* host : {"f1", "f2", "x1", "q1", "core", "at-home", "nobody", ""}) {
    expect_refused(host, "flow.stage", stage(), "does not speak for 10.66.1.20");
  }
  // With an address of its own beside it.
  std::map<Ip, Ip> both = kOthersWay;
  both.insert(kWay.begin(), kWay.end());
  expect_refused("x1", "flow.stage", stage({connection(kP, kQ, 5000)}, 7, kSecret, both),
                 "does not speak for 10.66.1.20");
  move();
  for (const char* host : {"f2", "x1", "q1"}) {
    expect_refused(host, "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay),
                   "does not speak for 10.66.1.20");
  }
  // Who proved to have it may say where it goes next.
  expect_done("f1", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay));
}

TEST_F(AssociationsTest, WithoutAFabricNobodyIsAtHome) {
  forget_fabric();
  expect_refused("home", "flow.stage", stage(), "does not speak for 10.66.1.20");
}

TEST_F(AssociationsTest, WhoIsNoMoreWhereItWasLastHasNoSay) {
  move();
  move_again();
  expect_refused("f1", "flow.stage", stage({connection(kP, kQ, 5000)}, 9, kNextSecret, kWay),
                 "does not speak for 10.66.1.20");
}

TEST_F(AssociationsTest, AnotherGuestsConnectionsAreNotLabelled) {
  const auto its = connection(kOthers, kQ, 4000), ours = connection(kP, kQ, 5000);
  track(ours);
  const auto both = stage({its, ours}, 7, kSecret, kOthersWay, kOtherGuest);
  EXPECT_EQ(ask("x1", "flow.stage", both).value(), (json{{"labelled", 1}}));
  json more = update("f2", 7, kSecret, kOthersWay, kOtherGuest);
  more["connections"] = to_json({its, ours}, kSecret);
  expect_done("f2", "flow.update", more);
  EXPECT_EQ(labelled(), (std::set<std::pair<Ip, std::uint16_t>>{{kQ, 4000}}));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kOthers, kOthersWay.at(kOthers))});
  expect_refused("x1", "flow.stage", stage({ours}, 8, kSecret, kOthersWay, kOtherGuest),
                 "none of these connections");
}

TEST_F(AssociationsTest, NobodyStagesWithoutAnAddress) {
  track(connection(kP, kQ, 5000));
  for (const char* host : {"home", "x1", "nobody"}) {
    expect_refused(host, "flow.stage", stage({connection(kP, kQ, 5000)}, 7, kSecret, {}),
                   "1 to 16");
  }
  std::map<Ip, Ip> many;
  for (std::uint32_t i = 0; i < 17; ++i) {
    many.emplace(Ip::of4(0x0a420114 + i), Ip::of4(0x0a4202c8 + i));
  }
  expect_refused("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 7, kSecret, many),
                 "1 to 16");
}

// By its name, its locator, or its address: each would take what another host agreed.
TEST_F(AssociationsTest, WhatIsAnotherGuestsIsNotTaken) {
  move();
  const auto its = connection(kOthers, kQ, 4000);
  expect_refused("x1", "flow.stage", stage({its}, 8, kNextSecret, kOthersWay, kGuest),
                 "does not speak for 10.66.1.20");
  for (const std::string& guest : {kOtherGuest, std::string(32, 'f')}) {
    expect_refused("x1", "flow.stage",
                   stage({its}, 8, kNextSecret, {{kOthers, kWay.at(kP)}}, guest), "guest db's");
    expect_refused("home2", "flow.stage",
                   stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay, guest),
                   "guest db's");
  }
}

TEST_F(AssociationsTest, WhatIsOnlyStagedIsNotTakenEither) {
  expect_done("home", "flow.stage", stage());
  const auto its = connection(kOthers, kQ, 4000);
  expect_refused("x1", "flow.stage", stage({its}, 8, kNextSecret, kOthersWay, kGuest),
                 "does not speak for 10.66.1.20");
  expect_refused("x1", "flow.stage",
                 stage({its}, 8, kNextSecret, {{kOthers, kWay.at(kP)}}, kOtherGuest), "guest db's");
}

// Its packets would be taken for the guest's.
TEST_F(AssociationsTest, TheWayIsALocatorAndNobodysAddress) {
  for (const char* way : {"10.66.2.20", "10.66.3.10", "10.66.1.20", "10.66.4.20", "192.0.2.1"}) {
    expect_refused("home", "flow.stage",
                   stage({connection(kP, kQ, 5000)}, 7, kSecret, {{kP, ip(way)}}), "no locator");
  }
  expect_refused("home", "flow.stage",
                 stage({connection(kP, kQ, 5000)}, 7, kSecret,
                       {{kP, kWay.at(kP)}, {ip("10.66.1.21"), kWay.at(kP)}}),
                 "no locator");
}

// ---- secrets, labels, proofs ----

TEST_F(AssociationsTest, ASecretHasItsSize) {
  for (const std::size_t size : {0U, 1U, 16U, 31U, 33U, 64U}) {
    json bad = stage();
    bad["secret"] = to_hex(Bytes(size, std::byte{0x42}));
    expect_refused("home", "flow.stage", bad, "secret");
  }
  for (const json& bad : {json(std::string(64, 'g')), json(std::string(63, '4')), json(42),
                          json(nullptr), json::array()}) {
    json with = stage();
    with["secret"] = bad;
    expect_refused("home", "flow.stage", with, "secret");
  }
}

TEST_F(AssociationsTest, ALabelIsByTheSecret) {
  for (const bool is_staged : {false, true}) {
    if (is_staged) expect_done("home", "flow.stage", stage());
    json asked = is_staged ? update("f1") : stage();
    const auto refused = [&](const json& connections, const char* why) {
      asked["connections"] = connections;
      expect_refused(is_staged ? "f1" : "home", is_staged ? "flow.update" : "flow.stage", asked,
                     why);
    };
    const std::vector list{connection(kP, kQ, 6000)};
    refused(to_json(list, kNextSecret), "label");
    refused(to_json(list), "label");
    json guessed = to_json(list, kSecret);
    for (const char* label : {"0000000000000000", "ffffffffffffffff", "", "x"}) {
      guessed[0][8] = label;
      refused(guessed, "label");
    }
    json of_another = to_json({connection(kP, kQ, 5000)}, kSecret);
    of_another[0][4] = 6000U;
    refused(of_another, "label");
    json one_of_two = to_json({connection(kP, kQ, 5000), connection(kP, kQ, 6000)}, kSecret);
    one_of_two[1][8] = one_of_two[0][8];
    refused(one_of_two, "label");
    refused(nullptr, "list");
  }
}

TEST_F(AssociationsTest, NothingIsUpdatedThatIsNotStaged) {
  track(connection(kP, kQ, 5000));
  expect_refused("f1", "flow.update", update("f1"), "nothing is agreed");
  expect_refused("home", "flow.update", update("home"), "nothing is agreed");
  expect_done("home", "flow.stage", stage());
  for (const Epoch other : {1U, 6U, 8U}) {
    expect_refused("f1", "flow.update", update("f1", other), "nothing is agreed");
  }
  expect_done("home", "flow.undo", {{"guest", kGuest}});
  expect_refused("f1", "flow.update", update("f1"), "nothing is agreed");
}

TEST_F(AssociationsTest, AnUpdateIsProved) {
  expect_done("home", "flow.stage", stage());
  expect_refused("f2", "flow.update", update("f1"), "not proved");
  expect_refused("home", "flow.update", update("f1"), "not proved");
  json with_proof = update("f1");
  const std::string right = with_proof["proof"];
  std::string last = right;
  last.back() = last.back() == '0' ? '1' : '0';
  for (const json& bad :
       {update("f2")["proof"], update("f1", 8)["proof"], update("f1", 7, kNextSecret)["proof"],
        update("f1", 7, kSecret, kNextWay)["proof"], update("f1", 7, kSecret, {})["proof"],
        update("f1", 7, kSecret, kWay, kOtherGuest)["proof"], proved("end", "f1")["proof"],
        json(last), json(right.substr(0, 31)), json(right + '0'), json(""), json(7), json(nullptr),
        json(to_hex(kSecret)), stage()["connections"][0][8]}) {
    with_proof["proof"] = bad;
    expect_refused("f1", "flow.update", with_proof, "not proved");
  }
  with_proof.erase("proof");
  expect_refused("f1", "flow.update", with_proof, "not proved");
  expect_done("f1", "flow.update", update("f1"));
}

TEST_F(AssociationsTest, AnOldUpdateComesTooLate) {
  move();
  move_again();
  expect_refused("f1", "flow.update", update("f1"), "nothing is agreed for move 7");
  expect_refused("f2", "flow.update", update("f2"), "nothing is agreed for move 7");
  for (const Epoch old : {7U, 8U}) {
    expect_refused("home", "flow.stage", stage({connection(kP, kQ, 5000)}, old), "moved again");
  }
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kNextWay.at(kP))});
  EXPECT_EQ(coming(), std::set<json>{element(kNextWay.at(kP), kQ, kP)});
  // Its secret is worth nothing any more.
  expect_refused("f1", "flow.update", update("f1", 8), "not proved");
  expect_refused("f1", "flow.end", proved("end", "f1"), "not proved");
}

TEST_F(AssociationsTest, WhatIsStagedLeavesWhatIsUntilItIsThere) {
  move();
  expect_done("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
  EXPECT_EQ(coming().size(), 2U);
  expect_done("f1", "flow.update", update("f1"));  // repeated
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
  expect_done("f2", "flow.update", update("f2", 8, kNextSecret, kNextWay));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kNextWay.at(kP))});
  EXPECT_EQ(coming().size(), 1U);
}

TEST_F(AssociationsTest, ARepeatedRequestIsAnsweredAsTheFirst) {
  const auto first = ask("home", "flow.stage", stage());
  const Kernel staged = now();
  EXPECT_EQ(ask("home", "flow.stage", stage()).value(), first.value());
  EXPECT_EQ(now(), staged);
  const auto told = ask("f1", "flow.update", update("f1"));
  const Kernel updated = now();
  const json stored = documents();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(), told.value());
    EXPECT_EQ(now(), updated);
    EXPECT_EQ(documents(), stored);
  }
}

TEST_F(AssociationsTest, OnlyWhoStagedTakesItBack) {
  expect_done("home", "flow.stage", stage());
  const Kernel staged = now();
  for (const char* host : {"f1", "x1", "home2", ""}) {
    expect_done(host, "flow.undo", {{"guest", kGuest}});
    EXPECT_EQ(now(), staged) << host;
  }
  expect_done("home", "flow.undo", {{"guest", kOtherGuest}});
  EXPECT_EQ(now(), staged);
  expect_done("home", "flow.undo", {{"guest", kGuest}});
  EXPECT_EQ(coming(), std::set<json>());
  EXPECT_EQ(documents(), json::array());
}

TEST_F(AssociationsTest, WhatIsTakenBackLeavesWhatWasBefore) {
  move();
  const Kernel before = now();
  expect_done("home", "flow.undo", {{"guest", kGuest}});
  EXPECT_EQ(now(), before) << "the move is over";
  expect_done("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay));
  EXPECT_NE(now(), before);
  expect_done("home", "flow.undo", {{"guest", kGuest}});
  EXPECT_EQ(now(), before);
  start();
  EXPECT_EQ(now(), before);
}

TEST_F(AssociationsTest, TheEndIsProved) {
  expect_done("home", "flow.stage", stage());
  expect_refused("f1", "flow.end", proved("end", "f1"), "not proved");  // it is not there yet
  expect_done("f1", "flow.update", update("f1"));
  expect_refused("f2", "flow.end", proved("end", "f1"), "not proved");
  json bad = proved("end", "f1");
  for (const json& proof :
       {update("f1")["proof"], proved("end", "f2")["proof"], proved("end", "f1", 8)["proof"],
        proved("end", "f1", 7, kNextSecret)["proof"],
        proved("end", "f1", 7, kSecret, kNextWay)["proof"],
        proved("end", "f1", 7, kSecret, kWay, kOtherGuest)["proof"], json(""), json(nullptr)}) {
    bad["proof"] = proof;
    expect_refused("f1", "flow.end", bad, "not proved");
  }
  bad.erase("proof");
  expect_refused("f1", "flow.end", bad, "not proved");
}

TEST_F(AssociationsTest, TheEndOfAMoveIsNotTheNextOnes) {
  move();
  expect_done("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay));
  expect_done("f1", "flow.end", proved("end", "f1"));
  EXPECT_EQ(moved(), std::set<json>());
  EXPECT_EQ(coming(), std::set<json>{element(kNextWay.at(kP), kQ, kP)});
  expect_done("f2", "flow.update", update("f2", 8, kNextSecret, kNextWay));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kNextWay.at(kP))});
}

// ---- agents that end, and disks that are full ----

TEST_F(AssociationsTest, AnUpdateThatWasLostComesAfterARestart) {
  expect_done("home", "flow.stage", stage());
  const Kernel staged = now();
  start();
  EXPECT_EQ(now(), staged);
  expect_refused("f2", "flow.update", update("f1"), "not proved");
  const auto told = ask("f1", "flow.update", update("f1"));
  ASSERT_TRUE(told) << told.error().text;
  const Kernel updated = now();
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
  start();
  EXPECT_EQ(now(), updated);
  // Whose answer was lost.
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(), told.value());
  EXPECT_EQ(now(), updated);
  expect_refused("f1", "flow.update", update("f1", 8), "nothing is agreed");
  expect_done("f1", "flow.end", proved("end", "f1"));
  start();
  EXPECT_EQ(moved(), std::set<json>());
}

TEST_F(AssociationsTest, ARestartWritesWhatOthersTookAway) {
  move();
  const Kernel before = now();
  const json described = associations->describe();
  netns->run([] { ASSERT_TRUE(os::apply_nftables("flush ruleset")); });
  ASSERT_EQ(moved(), std::set<json>());
  start();
  EXPECT_EQ(now(), before);
  EXPECT_EQ(associations->describe(), described);
  // Also one whose disk is full.
  disk->is_full = true;
  netns->run([] { ASSERT_TRUE(os::apply_nftables("flush ruleset")); });
  start();
  EXPECT_EQ(now(), before);
}

TEST_F(AssociationsTest, ARestartTakesNothingAwayInBetween) {
  const os::MovedRules of_a_guest_here{.on_the_way = {{kQ, ip("10.66.3.200")}}};
  move();
  netns->run([&] { ASSERT_TRUE(kernel->set("endpoint web", of_a_guest_here)); });
  const Kernel before = now();
  netns->run([&] { start_associations(); });
  EXPECT_EQ(now(), before);
  netns->run([&] {
    ASSERT_TRUE(kernel->set("endpoint web", of_a_guest_here));
    kernel->start();
  });
  EXPECT_EQ(now(), before);
}

TEST_F(AssociationsTest, WhatTheStoreHasNoRoomForIsTakenBack) {
  disk->is_full = true;
  expect_refused("home", "flow.stage", stage(), "");
  EXPECT_EQ(coming(), std::set<json>());
  disk->is_full = false;
  expect_done("home", "flow.stage", stage());
  disk->is_full = true;
  expect_refused("f1", "flow.update", update("f1"), "");
  EXPECT_EQ(moved(), std::set<json>());
  disk->is_full = false;
  expect_done("f1", "flow.update", update("f1"));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
}

// ---- what is no request ----

TEST_F(AssociationsTest, RefusesWhatIsNoRequest) {
  move();
  const Kernel before = now();
  const std::vector<json> values{nullptr,        true,          -1,
                                 1e300,          "x",           json::array(),
                                 json::object(), json{nullptr}, json{{"x", "y"}}};
  for (const char* method : {"flow.serves", "flow.stage", "flow.update", "flow.end", "flow.undo"}) {
    for (const json& bad : values) {
      (void)ask("x1", method, bad);
      for (const char* key : {"guest", "name", "epoch", "secret", "on_the_way", "connections",
                              "proof", "addresses"}) {
        json body = stage({connection(kP, kQ, 5000)}, 8);
        body[key] = bad;
        (void)ask("x1", method, body);
      }
    }
  }
  EXPECT_EQ(now(), before);
  EXPECT_THAT(ask("home", "flow.what", {}).error().text, HasSubstr("flow.what"));
  for (const char* key : {"guest", "secret", "on_the_way", "connections"}) {
    json body = stage({connection(kP, kQ, 5000)}, 8);
    body.erase(key);
    EXPECT_FALSE(ask("home", "flow.stage", body)) << key;
    EXPECT_EQ(now(), before) << key;
  }
  json many = json::array();
  for (int i = 0; i < 20001; ++i) many.push_back("10.66.3.10");
  EXPECT_FALSE(ask("home", "flow.serves", {{"addresses", many}}));
}

// ---- those that a guest takes along ----

TEST_F(AssociationsTest, WhatNoHostCanBeToldOfIsLeftOut) {
  auto group = connection(kQ, ip("224.0.0.251"), 5353);
  group.protocol = IPPROTO_UDP;
  group.state = 0;
  auto sctp = connection(kQ, kP, 7000);
  sctp.protocol = IPPROTO_SCTP;
  auto over = connection(kQ, kP, 7001);
  over.state = 7;  // TCP_CONNTRACK_TIME_WAIT
  const auto usual = connection(kQ, kP, 7002);
  netns->run([&] {
    const auto added = os::add_connections({group, sctp, over, usual});
    ASSERT_TRUE(added) << added.error().text;
    ASSERT_EQ(os::connections_of({kQ}).size(), 4U);
    const auto told = EndpointKernel::connections_of({kQ}).value();
    ASSERT_EQ(told.size(), 1U);
    EXPECT_EQ(told[0].peer_port, 7002);
    EXPECT_TRUE(parse_connections(to_json(told)));
  });
}

}  // namespace
}  // namespace godwit::agent

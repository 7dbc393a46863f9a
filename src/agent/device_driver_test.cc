// A device's rules in the kernel and in the store, in a network namespace of the test's own; needs
// root, or is skipped.
//
//   far, 10.1.0.9 ── rack [ device ] up ── 10.2.0.0/30
//                    10.1.0.1/24
#include "agent/device_driver.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "os/forwarding.hh"
#include "os/netlink.hh"
#include "os/nftables.hh"
#include "store/disk.hh"
#include "translate/rule_json.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using translate::Phase;
using translate::Rule;
using translate::RuleKind;
using translate::Rules;
using translate::Version;

const std::string kWeb(32, 'a'), kMail(32, 'b');
constexpr std::uint8_t kOwnRoutes = 71;  // docs/protocol/api.md
Ip ip(const char* text) { return *parse_ip(text); }
Rule depart(const char* match, const char* becomes, bool is_active = true) {
  return {RuleKind::depart, ip(match), ip(becomes), is_active};
}
Rule claim(const char* match, bool is_active = true) {
  return {.kind = RuleKind::claim, .match = ip(match), .becomes = {}, .is_active = is_active};
}
const Rules kWebRules{depart("10.1.0.20", "10.7.0.5"), depart("fd01::20", "fd07::5"),
                      claim("10.1.0.20"), claim("fd01::20")};
const Rules kMailRules{depart("10.1.0.21", "10.7.0.6"), claim("10.1.0.21")};

struct DeviceDriverTest : testing::Test {
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    netns.emplace(os::NetNamespace::create());
    netns->run([&] { netlink.emplace(); });
    netlink->add_veth("rack", "far");
    netlink->add_veth("up", "core");
    for (const char* each : {"10.1.0.1/24", "fd01::1/64"}) netlink->add_address("rack", each);
    netlink->add_address("up", "10.2.0.1/30");
    for (const char* each : {"lo", "rack", "far", "up", "core"}) netlink->set_up(each);
    set_forwarding(0);
    events.observe([&](std::string_view name, const json& data) {
      if (name == "rule") told.push_back(data);
    });
    start();
  }
  // As the agent was started again.
  void start() {
    netns->run([&] {
      driver.emplace(loop, config, *store, events);
      driver->start();
    });
  }
  void set_forwarding(int value) {
    netns->run([&] {
      std::ofstream("/proc/sys/net/ipv4/ip_forward") << value;
      std::ofstream("/proc/sys/net/ipv6/conf/all/forwarding") << value;
    });
  }
  Result<> set(const std::string& guest, const Version& version, const Rules& rules) {
    return netns->run([&] { return driver->set(guest, "web1", version, rules); });
  }
  void expect_set(const std::string& guest, const Version& version, const Rules& rules) {
    const auto done = set(guest, version, rules);
    ASSERT_TRUE(done) << done.error().text;
  }
  json verify() {
    return netns->run([&] { return driver->verify().value(); });
  }
  json list() {
    return netns->run([&] { return driver->describe(); });
  }
  void look() {
    netns->run([&] { driver->look(); });
  }
  json ask(const std::string& method, const json& body) {
    json got;
    netns->run([&] {
      driver->on_request({.peer = "w1",
                          .method = method,
                          .answer =
                              [&](const Result<json>& answer) {
                                got = answer ? *answer : json{{"error", answer.error().text}};
                              }},
                         body);
    });
    return got;
  }
  void nft(const std::string& ruleset) {
    netns->run([&] { ASSERT_TRUE(os::apply_nftables(ruleset)) << ruleset; });
  }
  // Without what the driver itself says of it.
  struct Kernel {
    os::Rewrites rewrites{};
    os::Claims claims{};
    bool operator==(const Kernel& other) const {
      return rewrites == other.rewrites && claims.routes == other.claims.routes &&
             claims.proxies == other.claims.proxies;
    }
  };
  Kernel kernel() {
    return netns->run([] {
      return Kernel{.rewrites = os::AddressRewriting::read().value(), .claims = os::read_claims()};
    });
  }
  void expect_web_in_kernel() {
    const Kernel found = kernel();
    EXPECT_EQ(found.rewrites.depart, (std::map{std::pair(ip("10.1.0.20"), ip("10.7.0.5")),
                                               {ip("fd01::20"), ip("fd07::5")}}));
    for (const char* each : {"10.1.0.20", "fd01::20"}) {
      EXPECT_TRUE(found.claims.has("rack", ip(each))) << each;
    }
    EXPECT_EQ(verify()["ok"], true) << verify();
  }

  std::optional<os::NetNamespace> netns;
  std::optional<os::Netlink> netlink;
  Config config = [] {
    Config made;
    made.name = "edge1";
    return made;
  }();
  os::Loop loop;
  std::shared_ptr<store::MemoryDisk> disk = std::make_shared<store::MemoryDisk>();
  std::unique_ptr<store::Store> store = store::open_on(disk);
  Events events;
  std::vector<json> told;
  std::optional<DeviceDriver> driver;
};

TEST_F(DeviceDriverTest, WhatItTookIsInTheKernelAndGoesAgain) {
  expect_set(kWeb, {3, Phase::flipped}, kWebRules);
  expect_web_in_kernel();
  netns->run([] {
    EXPECT_TRUE(os::forwards(true));
    EXPECT_TRUE(os::forwards(false));
  });
  EXPECT_EQ(list()[0], (json{{"guest", kWeb},
                             {"name", "web1"},
                             {"epoch", 3},
                             {"phase", "flipped"},
                             {"kind", "depart"},
                             {"match", "10.1.0.20"},
                             {"becomes", "10.7.0.5"},
                             {"packets", 0}}));
  EXPECT_EQ(list().size(), 4U);
  expect_set(kWeb, {4, Phase::settled}, {});
  EXPECT_EQ(kernel(), Kernel());
  EXPECT_EQ(list(), json::array());
  expect_set(kWeb, {4, Phase::flipped}, kWebRules);
  EXPECT_EQ(kernel(), Kernel()) << "that one is late";
  start();
  expect_set(kWeb, {4, Phase::flipped}, kWebRules);
  EXPECT_EQ(kernel(), Kernel()) << "its version is known after a restart, too";
}

TEST_F(DeviceDriverTest, WhatIsStagedClaimsNothing) {
  expect_set(kWeb, {1, Phase::staged},
             {depart("10.1.0.20", "10.7.0.5", false), claim("10.1.0.20", false)});
  EXPECT_EQ(kernel(), (Kernel{.rewrites = {.staged = {{ip("10.1.0.20"), ip("10.7.0.5")}}}}));
  EXPECT_EQ(list()[0]["staged"], true);
  EXPECT_FALSE(list()[0].contains("packets"));
}

TEST_F(DeviceDriverTest, WhatItRefusesChangesNothing) {
  expect_set(kWeb, {1, Phase::settled}, kWebRules);
  const Kernel before = kernel();
  const auto refused = [&](const Rules& rules) {
    const auto done = set(kMail, {1, Phase::staged}, rules);
    EXPECT_FALSE(done);
    EXPECT_EQ(kernel(), before);
    EXPECT_EQ(list().size(), 4U);
    EXPECT_EQ(store->list("guest-rules").size(), 1U);
    const std::string text = done ? "" : done.error().text;
    EXPECT_THAT(text, HasSubstr("edge1 the rules of guest web1 (staged, epoch 1)"));
    return text;
  };
  for (const bool is_active : {true, false}) {
    EXPECT_THAT(refused({depart("10.1.0.1", "10.7.0.9", is_active)}), HasSubstr("martian"));
    EXPECT_THAT(refused({claim("10.1.0.1", is_active)}), HasSubstr("martian"));
    EXPECT_THAT(refused({claim("fd01::1", is_active)}), HasSubstr("martian"));
    EXPECT_THAT(refused({claim("10.9.0.7", is_active)}), HasSubstr("no interface"));
  }
  EXPECT_THAT(refused({Rule{RuleKind::answer, ip("10.2.0.1")}}), HasSubstr("martian"));
  EXPECT_THAT(refused({Rule{RuleKind::arrive, ip("10.1.0.200"), ip("10.9.0.7"), false}}),
              HasSubstr("never staged"));
  EXPECT_THAT(refused({depart("10.1.0.20", "10.7.0.9")}), HasSubstr("has a rule for that address"));
  // The kernel: there are no maps from one family to the other.
  EXPECT_THAT(refused({depart("10.1.0.21", "fd07::5"), claim("10.1.0.21")}), HasSubstr("nftables"));
}

TEST_F(DeviceDriverTest, AClaimThatTheKernelRefusesIsNotHalfThere) {
  netlink->set_down("lo");  // by which its route would be
  const auto done = set(kMail, {1, Phase::flipped}, kMailRules);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().text, HasSubstr("'claim 10.1.0.21': add a route to 10.1.0.21/32"));
  EXPECT_EQ(kernel(), Kernel());
  EXPECT_TRUE(store->list("guest-rules").empty());
}

TEST_F(DeviceDriverTest, WhatTheStoreHasNoRoomForIsTakenBack) {
  expect_set(kWeb, {1, Phase::settled}, kWebRules);
  const Kernel before = kernel();
  disk->is_full = true;
  EXPECT_FALSE(set(kMail, {1, Phase::flipped}, kMailRules));
  EXPECT_EQ(kernel(), before);
  EXPECT_FALSE(set(kWeb, {2, Phase::settled}, {})) << "what was released is claimed again";
  EXPECT_EQ(kernel(), before);
  EXPECT_EQ(verify()["ok"], true);
  disk->is_full = false;
  expect_set(kMail, {1, Phase::flipped}, kMailRules);
  EXPECT_EQ(list().size(), 6U);
}

TEST_F(DeviceDriverTest, ARebootedDeviceWritesAllAnew) {
  expect_set(kWeb, {3, Phase::settled}, kWebRules);
  nft("flush ruleset");
  for (const char* each : {"10.1.0.20", "fd01::20"}) {
    netns->run([&] { os::unclaim("rack", ip(each)); });
  }
  set_forwarding(0);
  EXPECT_EQ(kernel(), Kernel());
  start();
  expect_web_in_kernel();
  EXPECT_EQ(list()[0]["epoch"], 3);
  netns->run([] { EXPECT_TRUE(os::forwards(true)); });
}

TEST_F(DeviceDriverTest, ARestartedAgentTakesOverWhatIsThere) {
  expect_set(kWeb, {3, Phase::settled}, kWebRules);
  netns->run([] { os::claim("rack", ip("10.1.0.77")); });  // a process that was killed in between
  start();
  expect_web_in_kernel();
  EXPECT_EQ(kernel().claims.routes.size(), 2U);
  expect_set(kWeb, {4, Phase::settled}, {});
  EXPECT_EQ(kernel(), Kernel());
}

TEST_F(DeviceDriverTest, WhatOthersTookAwayIsRepairedAndTold) {
  expect_set(kWeb, {1, Phase::settled}, kWebRules);
  look();
  EXPECT_EQ(told.size(), 1U) << "nothing was to be repaired";
  nft("flush ruleset");
  EXPECT_EQ(verify()["missing"].size(), 2U) << verify();
  look();
  expect_web_in_kernel();
  ASSERT_EQ(told.size(), 2U);
  EXPECT_EQ(told[1]["event"], "repaired");
  EXPECT_EQ(told[1]["written"].size(), 2U) << told[1];
  nft("flush chain inet godwit_translate departing");
  EXPECT_EQ(verify()["ok"], false);
  look();
  expect_web_in_kernel();
  netlink->remove_route("10.1.0.20/32", kOwnRoutes);
  EXPECT_EQ(verify()["claims_missing"].size(), 1U) << verify();
  look();
  expect_web_in_kernel();
  netlink->set_down("rack");  // the kernel forgets its proxies
  netlink->set_up("rack");
  netlink->add_address("rack", "fd01::1/64");  // which it forgets, too
  EXPECT_EQ(verify()["claims_missing"].size(), 2U) << verify();
  look();
  expect_web_in_kernel();
  set_forwarding(0);
  EXPECT_EQ(verify()["forwarding_off"], (json{"IPv4", "IPv6"}));
  look();
  expect_web_in_kernel();
  EXPECT_EQ(told.size(), 6U);
}

TEST_F(DeviceDriverTest, WhatTheKernelRefusesIsTriedAgain) {
  expect_set(kWeb, {1, Phase::settled}, kWebRules);
  netlink->set_down("rack");
  start();
  EXPECT_EQ(verify()["claims_missing"].size(), 2U);
  EXPECT_EQ(verify()["missing"].size(), 0U) << "the rest is there";
  // Another guest's claim on a segment that is down is nothing to it.
  expect_set(kMail, {1, Phase::staged}, {depart("10.2.0.2", "10.7.0.6", false)});
  netlink->set_up("rack");
  netlink->add_address("rack", "fd01::1/64");  // which went with the link
  netns->run([&] {
    const Instant end = loop.now() + seconds(20);
    while (driver->verify().value()["ok"] != true && loop.now() < end) loop.run_once(seconds(1));
  });
  EXPECT_EQ(verify()["ok"], true) << verify();
}

TEST_F(DeviceDriverTest, WhatIsForeignIsFoundAndRemoved) {
  expect_set(kWeb, {1, Phase::settled}, kWebRules);
  nft("add element inet godwit_translate depart4 { 10.1.0.99 : 10.7.0.9 }");
  netns->run([] { os::answer_for("rack", ip("10.1.0.98")); });
  netlink->add_proxy_neighbour("rack", "10.1.0.97");         // an operator's
  netlink->add_route("10.1.0.96/32", {}, "lo", kOwnRoutes);  // whose proxy was not made any more
  EXPECT_EQ(verify()["foreign"],
            (json{{{"kind", "depart"}, {"match", "10.1.0.99"}, {"becomes", "10.7.0.9"}},
                  {{"kind", "claim"}, {"match", "10.1.0.96"}},
                  {{"kind", "claim"}, {"match", "10.1.0.98"}}}));
  const json done = ask("rule.repair", json::object());
  EXPECT_EQ(done["removed"].size(), 3U) << done;
  EXPECT_EQ(done["written"], json::array());
  expect_web_in_kernel();
  EXPECT_EQ(kernel().claims.routes.size(), 2U);
  EXPECT_TRUE(kernel().claims.proxies.contains(ip("10.1.0.97")));
  EXPECT_EQ(ask("rule.repair", json::object())["removed"], json::array());
}

TEST_F(DeviceDriverTest, AnswersPeers) {
  const json wish = {{"guest", kWeb},
                     {"name", "web1"},
                     {"epoch", 3},
                     {"phase", "flipped"},
                     {"rules", translate::to_json(kWebRules)}};
  EXPECT_EQ(ask("rule.set", wish), json::object());
  EXPECT_EQ(ask("rule.set", wish), json::object());
  expect_web_in_kernel();
  EXPECT_EQ(ask("rule.list", {})["rules"], list());
  EXPECT_EQ(ask("rule.verify", {})["ok"], true);
  EXPECT_EQ(ask("rule.departed", {{"addresses", {"10.1.0.20", "10.1.0.50", "x"}}}),
            (json{{"packets", {{"10.1.0.20", 0}}}}));
  for (const char* key : {"guest", "name", "epoch", "phase", "rules"}) {
    json wrong = wish;
    wrong[key] = json::object();
    EXPECT_THAT(ask("rule.set", wrong).value("error", ""), HasSubstr("rule.set:")) << key;
  }
  EXPECT_THAT(ask("rule.what", {}).value("error", ""), HasSubstr("rule.what"));
  EXPECT_EQ(ask("rule.forget", {{"guest", kWeb}})["removed"].size(), 4U);
  EXPECT_EQ(ask("rule.forget", {{"guest", kWeb}})["removed"], json::array());
  EXPECT_EQ(kernel(), Kernel());
  EXPECT_TRUE(store->list("guest-rules").empty());
}

TEST_F(DeviceDriverTest, AnAnswerThatIsTooLargeSaysWhatToDo) {
  Rules many;
  for (std::uint32_t i = 0; i < 4000; ++i) {
    many.push_back({RuleKind::depart, Ip::of4(0x0a090000 + i), ip("10.7.0.5")});
  }
  expect_set(kWeb, {1, Phase::staged}, many);
  EXPECT_THAT(ask("rule.list", {}).value("error", ""), HasSubstr("--at edge1 rule ls"));
  EXPECT_EQ(list().size(), many.size());
}

TEST_F(DeviceDriverTest, OfGuestsThatAreGoneItRemembersTheLast) {
  for (std::size_t i = 0; i < translate::kMostGone; ++i) {
    const std::string guest = fmt::format("guest{}", i);
    ASSERT_TRUE(store->record("guest-rules", guest,
                              {{"guest", guest},
                               {"name", "web1"},
                               {"epoch", 1},
                               {"phase", "undone"},
                               {"rules", json::array()}}));
  }
  start();
  expect_set(kWeb, {1, Phase::undone}, {});
  EXPECT_EQ(store->list("guest-rules").size(), translate::kMostGone);
}

TEST_F(DeviceDriverTest, ADamagedRecordIsNotGuessedAt) {
  ASSERT_TRUE(store->record("guest-rules", kWeb, {{"guest", kWeb}}));
  EXPECT_THROW(start(), SetupError);
}

}  // namespace
}  // namespace godwit::agent

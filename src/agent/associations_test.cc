// What hosts say about guests whose correspondents are behind this one, as it goes.
#include "agent/associations_testing.hh"

namespace godwit::agent {
namespace {

// ---- as it goes ----

TEST_F(AssociationsTest, WhatIsAgreedIsRedirectedOnceTheGuestIsThere) {
  const Kernel untouched = now();
  const auto staged =
      ask("home", "flow.stage", stage({connection(kP, kQ, 5000), connection(kP, kOwn, 5001)}));
  ASSERT_TRUE(staged) << staged.error().text;
  EXPECT_EQ(*staged, (json{{"labelled", 2}, {"knows_early", true}}));
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
                                               {"addresses", json::array({kP.text()})},
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
  EXPECT_EQ(*staged, (json{{"labelled", 1}, {"knows_early", true}}));
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

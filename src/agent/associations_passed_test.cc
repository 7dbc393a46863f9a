// Correspondents that move, too: what is agreed about the guests that they talk to goes with them.
#include "agent/associations_testing.hh"

namespace godwit::agent {
namespace {

const std::set<Ip> kGoing{kQ};

struct PassedTest : AssociationsTest {
  json pass_on(const std::string& host = "q2") {
    const auto passed = netns->run([&] { return associations->pass_on(kGoing, host); });
    EXPECT_TRUE(passed) << passed.error().text;
    return passed.value_or(json());
  }
  // From now on this is the host where the guest behind q1 has come to.
  void be_next_host() {
    config.name = "q2";
    for (const auto& each : store->list("association")) store->erase("association", each.key);
    start();
    ASSERT_EQ(moved().size() + coming().size(), 0U);
  }
  Result<> adopt(const json& passed) {
    return netns->run([&] {
      return associations->adopt(passed, kGoing, {seen_by_peer(connection(kP, kQ, 5000))});
    });
  }
  void expect_adopted(const json& passed) {
    const auto done = adopt(passed);
    ASSERT_TRUE(done) << done.error().text;
  }
  // As the guest's host asks here, by what was agreed with q1.
  static json at_next(json body) {
    body["with"] = "q1";
    return body;
  }
};

TEST_F(PassedTest, WhoeverTellsOfAGuestIsSentOn) {
  expect_done("home", "flow.stage", stage({connection(kP, kQ, 5000), connection(kP, kOwn, 5001)}));
  const json passed = pass_on();
  ASSERT_EQ(passed.size(), 1U);
  EXPECT_EQ(passed[0]["correspondents"], json{kQ.text()});
  EXPECT_EQ(passed[0]["with"], "q1");
  EXPECT_EQ(pass_on(), passed);
  const json both{{"correspondents", {kOwn.text(), kQ.text()}}, {"passed", {{"q2", {kQ.text()}}}}};
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(), both);
  start();
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(), both);
}

TEST_F(PassedTest, WhoDoesNotLeaveIsNotPassedOn) {
  expect_done("home", "flow.stage", stage());
  pass_on();
  netns->run([&] { associations->take_back(kGoing); });
  const json here{{"correspondents", {kQ.text()}}};
  start();
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(), here);
}

TEST_F(PassedTest, WhoIsLeavingIsNotHere) {
  move();
  associations->leave(kGoing, kGoing);
  EXPECT_EQ(ask("home", "flow.serves", {{"addresses", {kQ.text()}}}).value(),
            (json{{"addresses", json::array()}}));
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(),
            (json{{"correspondents", json::array()}}));
  expect_refused("home", "flow.stage", stage({connection(kP, kQ, 5000)}, 8, kNextSecret, kNextWay),
                 "none of these connections");
  associations->leave({}, {});
  EXPECT_EQ(ask("f1", "flow.update", update("f1")).value(),
            (json{{"correspondents", {kQ.text()}}}));
}

// The guest's host does not know yet where its packets will come from.
TEST_F(PassedTest, OfWhoIsOnItsWayItIsTooEarlyToTell) {
  expect_done("home", "flow.stage", stage());
  json early = update("f1");
  early["early"] = true;
  const json too_early{{"too_early", true}};
  const Kernel staged = now();
  const json stored = documents();
  associations->leave(kGoing, {});
  EXPECT_EQ(ask("f1", "flow.update", early).value(), too_early);
  associations->leave({}, {});
  netns->run(
      [&] { ASSERT_TRUE(kernel->set("endpoint web", {.on_the_way = {{kQ, ip("10.66.3.200")}}})); });
  EXPECT_EQ(ask("f1", "flow.update", early).value(), too_early);
  netns->run([&] { kernel->drop("endpoint web"); });
  EXPECT_EQ(now(), staged);
  EXPECT_EQ(documents(), stored);
  pass_on();
  EXPECT_EQ(ask("f1", "flow.update", early).value(), too_early);
  EXPECT_TRUE(moved().empty());
  early["early"] = false;
  expect_done("f1", "flow.update", early);
  EXPECT_EQ(moved().size(), 1U);
}

TEST_F(PassedTest, WhoStaysIsToldEarly) {
  expect_done("home", "flow.stage", stage());
  json early = update("f1");
  early["early"] = true;
  EXPECT_EQ(ask("f1", "flow.update", early).value(), (json{{"correspondents", {kQ.text()}}}));
  EXPECT_EQ(moved().size(), 1U);
}

TEST_F(PassedTest, TheNextHostLeadsAsTheOneBefore) {
  move();
  const json passed = pass_on();
  be_next_host();
  const Kernel untouched = now();
  expect_adopted(passed);
  const Ip way = kWay.at(kP);
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, way)});
  EXPECT_EQ(coming(), std::set<json>{element(way, kQ, kP)});
  EXPECT_EQ(labelled(), (std::set<std::pair<Ip, std::uint16_t>>{{kQ, 5000}}));
  EXPECT_EQ(associations->holder_of(kP), "f1");
  EXPECT_EQ(associations->describe()[0]["agreed_with"], "q1");
  start();
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, way)});
  expect_done("f1", "flow.end", at_next(proved("end", "f1")));
  EXPECT_EQ(now().rules, untouched.rules);
  EXPECT_EQ(documents(), json::array());
}

TEST_F(PassedTest, AMoveThatIsUnderWayComesToItsEndThere) {
  expect_done("home", "flow.stage", stage());
  const json passed = pass_on();
  be_next_host();
  expect_adopted(passed);
  EXPECT_EQ(moved(), std::set<json>());
  expect_refused("f1", "flow.update", update("f1"), "nothing is agreed");
  expect_refused("f2", "flow.update", at_next(update("f1")), "not proved");
  EXPECT_EQ(ask("f1", "flow.update", at_next(update("f1"))).value(),
            (json{{"correspondents", {kQ.text()}}}));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
  expect_adopted(passed);  // repeated: what is newer stays
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
}

TEST_F(PassedTest, WhatWasAgreedHereIsBesideIt) {
  move();
  const json passed = pass_on();
  be_next_host();
  expect_done("home", "flow.stage", stage({connection(kP, kOwn, 5001)}, 7, kNextSecret));
  expect_adopted(passed);
  expect_done("f1", "flow.update", update("f1", 7, kNextSecret));
  const Ip way = kWay.at(kP);
  EXPECT_EQ(moved(), (std::set<json>{element(kQ, kP, way), element(kOwn, kP, way)}));
  expect_done("f1", "flow.end", proved("end", "f1", 7, kNextSecret));
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, way)});
}

TEST_F(PassedTest, TheEndIsSaidEverywhereFirst) {
  move();
  pass_on();
  const json sent_on{{"passed", {{"q2", {kQ.text()}}}}};
  EXPECT_EQ(ask("f1", "flow.end", proved("end", "f1")).value(), sent_on);
  EXPECT_EQ(ask("f1", "flow.end", proved("end", "f1")).value(), sent_on);
  EXPECT_EQ(associations->describe().size(), 1U);
  json last = proved("end", "f1");
  last["ended"] = {"q2"};
  EXPECT_EQ(ask("f1", "flow.end", last).value(), json::object());
  EXPECT_EQ(documents(), json::array());
}

TEST_F(PassedTest, WhatIsTakenBackIsTakenBackThere) {
  expect_done("home", "flow.stage", stage());
  const json passed = pass_on();
  EXPECT_EQ(ask("home", "flow.undo", {{"guest", kGuest}}).value(),
            (json{{"passed", {{"q2", {kQ.text()}}}}}));
  be_next_host();
  expect_adopted(passed);
  expect_done("f1", "flow.undo", at_next({{"guest", kGuest}}));
  EXPECT_EQ(documents().size(), 1U);
  expect_done("home", "flow.undo", at_next({{"guest", kGuest}}));
  EXPECT_EQ(documents(), json::array());
}

TEST_F(PassedTest, WithItsCorrespondentItGoes) {
  move();
  const json passed = pass_on();
  associations->forget_adopted(kGoing);  // agreed here: not adopted
  EXPECT_EQ(documents().size(), 1U);
  be_next_host();
  expect_adopted(passed);
  netns->run([&] { associations->forget_adopted({kOwn}); });
  EXPECT_EQ(documents().size(), 1U);
  netns->run([&] { associations->forget_adopted(kGoing); });
  EXPECT_EQ(documents(), json::array());
  EXPECT_EQ(moved(), std::set<json>());
}

TEST_F(PassedTest, BetweenGuestsOfOneHostNothingIsRedirected) {
  move();
  const json passed = pass_on();
  be_next_host();
  expect_adopted(passed);
  netns->run([&] {
    const auto made =
        network.add_port({{"name", "db"}, {"kind", "uplink"}, {"guest_addresses", {kP.text()}}});
    ASSERT_TRUE(made) << made.error().text;
  });
  EXPECT_EQ(moved(), std::set<json>());
  netns->run([&] { ASSERT_TRUE(network.remove_port("db", {})); });
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kWay.at(kP))});
}

TEST_F(PassedTest, OnlyWhoComesTakesAnythingAlong) {
  move();
  const json passed = pass_on();
  be_next_host();
  const auto refuses = [&](const char* field, const json& value, const char* why) {
    json wrong = passed;
    wrong[0][json::json_pointer(field)] = value;
    const auto done = adopt(wrong);
    ASSERT_FALSE(done) << field << " " << value;
    EXPECT_THAT(done.error().text, HasSubstr(why));
    EXPECT_EQ(documents(), json::array());
    EXPECT_EQ(moved(), std::set<json>());
  };
  refuses("/correspondents", {kQ.text(), kOwn.text()}, "correspondents that do not come");
  refuses("/guest", "x", "is no guest");
  refuses("/with", "", "is no guest");
  refuses("/current/secret", "42", "no key");
  refuses("/current/on_the_way", {{kP.text(), kElsewhere.text()}}, "no locator");
  refuses("/current/on_the_way", 7, "addresses are an object");
  EXPECT_TRUE(adopt(json()));
}

}  // namespace
}  // namespace godwit::agent

// Who may say what about guests whose correspondents are behind this host.
#include "agent/associations_testing.hh"

namespace godwit::agent {
namespace {

// ---- who may agree ----

TEST_F(AssociationsTest, OnlyWhereItIsAtHomeItIsStaged) {
  for (const char* host : {"f1", "f2", "x1", "core", "at-home", "nobody", ""}) {
    expect_refused(host, "flow.stage", stage(), "does not speak for 10.66.1.20");
  }
  // With an address of its own beside it.
  std::map<Ip, Ip> both = kOthersWay;
  both.insert(kWay.begin(), kWay.end());
  expect_refused("x1", "flow.stage", stage({connection(kP, kQ, 5000)}, 7, kSecret, both),
                 "does not speak for 10.66.1.20");
  move();
  for (const char* host : {"f2", "x1"}) {
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
  EXPECT_EQ(ask("x1", "flow.stage", both).value(), (json{{"labelled", 1}, {"knows_early", true}}));
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
  expect_refused("f1", "flow.end", proved("end", "f1", 8), "not proved");
  expect_done("f1", "flow.end", proved("end", "f1"));  // of its own move nothing is left
  EXPECT_EQ(moved(), std::set<json>{element(kQ, kP, kNextWay.at(kP))});
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
  expect_refused("f1", "flow.end", proved("end", "f2"), "not proved");
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

TEST_F(AssociationsTest, AMoveMayEndBeforeThisHostHasHeardThatItBegan) {
  expect_done("home", "flow.stage", stage());
  expect_refused("f2", "flow.end", proved("end", "f1"), "not proved");
  expect_done("f1", "flow.end", proved("end", "f1"));
  EXPECT_EQ(associations->describe(), json::array());
  EXPECT_EQ(coming(), std::set<json>());
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

}  // namespace
}  // namespace godwit::agent

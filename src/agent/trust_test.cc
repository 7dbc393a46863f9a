// What an operator may say of other fleets, and what is kept of it. The sessions themselves:
// session/trust_test.cc; what their hosts may ask: test/e2e/test_trust.py.
#include "agent/trust.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TrustTest : public testing::Test {
 protected:
  TrustTest() { start(); }
  // As an agent that was restarted.
  void start() {
    trust_ = std::make_unique<Trust>(
        loop_, *store_, events_,
        Trust::Handlers{
            .up = {},
            .down = [](const std::string&) {},
            .request = {},
            .wire_control = {},
            .ends =
                [this](const std::string& fleet, const std::optional<std::string>& port) {
                  const bool was_kept = store_->find("trust", fleet).has_value();
                  ended_.push_back(fleet + "/" + port.value_or("*") + (was_kept ? "" : " late"));
                },
            .changed =
                [this](const std::vector<crypto::TrustedFleet>& fleets) {
                  told_.clear();
                  for (const auto& fleet : fleets) told_.push_back(fleet.name);
                },
            .tenant_of =
                [this](const std::string& port) {
                  const auto found = tenants_.find(port);
                  return found == tenants_.end() ? std::string() : found->second;
                }});
    trust_->go_online(identity_);
  }
  static Json card(const crypto::FleetCa& ca, const std::string& host = "b1") {
    return {{"fleet", ca.fleet()},
            {"host", host},
            {"addresses", Json::array()},
            {"ca", ca.certificate().pem()}};
  }
  // What it is called, or the error.
  std::string add(const Json& card, const std::vector<std::string>& ports, const Json& more = {}) {
    Json request = {{"card", card}, {"ports", ports}};
    if (more.is_object()) request.update(more);
    const auto added = trust_->add(request);
    return added ? added->at("fleet").get<std::string>() : "error: " + added.error().text;
  }

  os::Loop loop_;
  std::unique_ptr<store::Store> store_ = store::make_memory_store();
  Events events_;
  const crypto::FleetCa ours_ = crypto::FleetCa::make("alpha");
  const crypto::FleetCa theirs_ = crypto::FleetCa::make("beta");
  const crypto::Identity identity_ = crypto::Identity::make(ours_, "a1").value();
  std::map<std::string, std::string> tenants_ = {{"p", "red"}, {"q", "red"}};
  std::vector<std::string> ended_, told_;
  std::unique_ptr<Trust> trust_;
};

TEST_F(TrustTest, APortIsTrustedWithItsTenant) {
  EXPECT_EQ(add(card(theirs_), {"p"}), "beta");
  EXPECT_TRUE(trust_->is_trusted("beta", "p", "red"));
  EXPECT_FALSE(trust_->is_trusted("beta", "p", "blue"));  // another's by now
  EXPECT_FALSE(trust_->is_trusted("beta", "q", "red"));
  EXPECT_FALSE(trust_->is_trusted("gamma", "p", "red"));
  EXPECT_FALSE(trust_->is_trusted("", "p", "red"));
  EXPECT_THAT(add(card(theirs_), {"q"}, {{"tenant", "blue"}}), HasSubstr("is of tenant red"));
  EXPECT_EQ(add(card(theirs_), {"to-come"}), "beta");
  EXPECT_TRUE(trust_->is_trusted("beta", "to-come", "default"));
  EXPECT_THAT(told_, ElementsAre("beta"));
  EXPECT_THAT(trust_->list("red")[0]["ports"], Json::parse(R"([{"name":"p","tenant":"red"}])"));
  EXPECT_EQ(trust_->list("blue"), Json::array());
}

TEST_F(TrustTest, RepeatedWhatIsNewIsAdded) {
  add(card(theirs_), {"p"});
  add(card(theirs_), {"p", "q"});
  add(card(theirs_, "b2"), {"q"});
  const Json shown = trust_->list("");
  ASSERT_EQ(shown.size(), 1U);
  EXPECT_EQ(shown[0]["ports"].size(), 2U);
  ASSERT_EQ(shown[0]["hosts"].size(), 2U);
  EXPECT_EQ(shown[0]["hosts"][0]["name"], "b1@beta");
  EXPECT_EQ(shown[0]["fingerprint"], to_hex(theirs_.certificate().fingerprint()));
}

TEST_F(TrustTest, ANameIsOneFleets) {
  const crypto::FleetCa forged = crypto::FleetCa::make("beta");
  const crypto::FleetCa alike = crypto::FleetCa::make("alpha");
  EXPECT_EQ(add(card(theirs_), {"p"}), "beta");
  EXPECT_THAT(add(card(forged), {"p"}), HasSubstr("another fleet is known here as beta"));
  EXPECT_EQ(trust_->fingerprint("beta"), to_hex(theirs_.certificate().fingerprint()));
  EXPECT_EQ(add(card(forged), {"p"}, {{"as", "other"}}), "other");
  EXPECT_THAT(add(card(theirs_), {"p"}, {{"as", "third"}}), HasSubstr("is known here as beta"));
  EXPECT_EQ(add(card(theirs_), {"p"}, {{"as", "beta"}}), "beta");
  EXPECT_THAT(add(card(alike), {"p"}), HasSubstr("our own fleet is called alpha"));
  EXPECT_THAT(add(card(alike), {"p"}, {{"as", "b@d"}}), HasSubstr("is not a name"));
  EXPECT_EQ(add(card(alike), {"p"}, {{"as", "namesake"}}), "namesake");
  EXPECT_THAT(told_, ElementsAre("beta", "namesake", "other"));
}

TEST_F(TrustTest, WhatIsNoCardIsRefused) {
  for (const Json& wrong : {Json(), Json(7), Json::object(), Json{{"ca", "garbage"}}}) {
    EXPECT_THAT(add(wrong, {"p"}), HasSubstr("not the card"));
  }
  EXPECT_THAT(add(card(ours_), {"p"}), HasSubstr("our own fleet"));
  Json changed = card(theirs_);
  changed["fleet"] = "gamma";
  EXPECT_THAT(add(changed, {"p"}), HasSubstr("was changed"));
  Json of_host = card(theirs_);
  of_host["ca"] = crypto::Identity::make(theirs_, "b1").value().certificate().pem();
  EXPECT_THAT(add(of_host, {"p"}), HasSubstr("not a fleet's CA"));
  Json no_host = card(theirs_, "b1@alpha");
  EXPECT_THAT(add(no_host, {"p"}), HasSubstr("not a valid host name"));
  Json named = card(theirs_);
  named["addresses"] = {"b1.example:4747"};
  EXPECT_THAT(add(named, {"p"}), HasSubstr("an address of b1"));
  const auto hour = std::chrono::hours(1);
  const crypto::FleetCa ended =
      crypto::FleetCa::make("beta", {crypto::wall_now() - 2 * hour, crypto::wall_now() - hour});
  EXPECT_THAT(add(card(ended), {"p"}), HasSubstr("expired"));
  EXPECT_THAT(add(card(theirs_), {}), HasSubstr("name the ports"));
  EXPECT_THAT(add(card(theirs_), {"no port"}), HasSubstr("not a port's name"));
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_THAT(store_->list("trust"), IsEmpty());
}

TEST_F(TrustTest, IsKeptAndEndsForGood) {
  add(card(theirs_), {"p", "q"});
  start();
  EXPECT_TRUE(trust_->is_trusted("beta", "p", "red"));
  EXPECT_THAT(told_, ElementsAre("beta"));
  ASSERT_TRUE(trust_->remove("beta", {"p"}));
  EXPECT_FALSE(trust_->is_trusted("beta", "p", "red"));
  EXPECT_TRUE(trust_->is_trusted("beta", "q", "red"));
  start();  // what was taken out of the record is not in it again
  EXPECT_FALSE(trust_->is_trusted("beta", "p", "red"));
  EXPECT_TRUE(trust_->is_trusted("beta", "q", "red"));
  ASSERT_TRUE(trust_->remove("beta", {}));
  EXPECT_THAT(ended_, ElementsAre("beta/p", "beta/*"));  // the wires before the record
  EXPECT_THAT(told_, IsEmpty());
  EXPECT_EQ(trust_->list(""), Json::array());
  EXPECT_EQ(trust_->sessions_with("b1@beta"), nullptr);
  ASSERT_TRUE(trust_->remove("beta", {}));  // harmless
  start();
  EXPECT_FALSE(trust_->is_trusted("beta", "q", "red"));
  EXPECT_THAT(told_, IsEmpty());
}

TEST_F(TrustTest, WithItsLastPortAFleetGoes) {
  add(card(theirs_), {"p"});
  ASSERT_TRUE(trust_->remove("beta", {"p"}));
  EXPECT_EQ(trust_->list(""), Json::array());
  EXPECT_THAT(told_, IsEmpty());
}

}  // namespace
}  // namespace godwit::agent

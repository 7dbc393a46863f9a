// Requests that go through another host's agent: two servers, joined by doubles of their sessions.
#include "agent/api_forward.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::agent {
namespace {

using http::Access;
using http::Caller;
using http::Request;
using http::Responder;
using http::Response;
using http::Role;
using nlohmann::json;
using testing::HasSubstr;

class FakePeers final : public Peers {
 public:
  FakePeers(std::string self, std::string other)
      : self_(std::move(self)), other_(std::move(other)) {}

  const std::string& self() const override { return self_; }
  bool is_up(const std::string& peer) const override { return protocol(peer) != 0; }
  std::vector<std::string> up() const override { return {other_}; }
  Nanoseconds rtt(const std::string&) const override { return Nanoseconds{0}; }
  unsigned protocol(const std::string& peer) const override { return peer == other_ ? version : 0; }
  void request(const std::string&, const std::string& method, const json& body, Reply reply,
               Nanoseconds) override {
    ++requests;
    if (is_silent) return reply(fail("host {} did not answer", other_));
    const auto shared = std::make_shared<Reply>(std::move(reply));
    to->on_request({.peer = self_,
                    .method = method,
                    .answer =
                        [shared](const Result<json>& answer) {
                          (*shared)(answer ? over_the_wire(*answer) : answer);
                        }},
                   over_the_wire(body));
  }
  static json over_the_wire(const json& message) {
    const std::string text = message.dump();
    EXPECT_LT(text.size(), std::size_t{1024 * 1024});
    return json::parse(text);
  }
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

  ApiForward* to = nullptr;
  unsigned version = kForwardProtocol;
  bool is_silent = false;
  int requests = 0;

 private:
  std::string self_, other_;
};

// e1, which is asked, and w1.
class ForwardTest : public testing::Test {
 protected:
  ForwardTest() {
    peers_.to = &w1_;
    far_peers_.to = &e1_;
    near_.use_gate([this](const Request& request, Responder& responder) {
      if (!e1_.is_elsewhere(request)) return true;
      e1_.forward(request, std::move(responder));
      return false;
    });
    near_.route("GET", "/v1/name", [](const Request&, Responder to) { to.json(200, "e1"); });
    far_.route("GET", "/v1/name", [](const Request&, Responder to) { to.json(200, "w1"); });
    far_.route("POST", "/v1/echo", [](const Request& request, Responder to) {
      const Caller& caller = *request.caller;
      to.json(201, {{"body", json::parse(request.body)},
                    {"query", request.query},
                    {"role", http::to_text(caller.role)},
                    {"name", caller.name},
                    {"tenant", caller.tenant},
                    {"via", caller.via}});
    });
    far_.route("POST", "/v1/invites", Access::root,
               [](const Request&, Responder to) { to.json(200, "a secret"); });
    far_.route("GET", "/v1/events", [](const Request&, Responder to) { to.events(); });
    far_.route("GET", "/metrics", [](const Request&, Responder to) {
      to.send({.content_type = "text/plain", .body = "figures"});
    });
    far_.route("GET", "/v1/much", [this](const Request&, Responder to) { to.json(200, much_); });
    far_.route("GET", "/v1/broken",
               [](const Request&, Responder) { throw std::runtime_error("it broke"); });
  }

  Response ask(const std::string& method, const std::string& path, const std::string& at = "w1",
               const json& body = nullptr, Caller caller = {}) {
    Request request;
    request.method = method;
    request.path = path;
    request.query = {{"at", at}, {"since", "7"}};
    if (!body.is_null()) request.body = body.dump();
    request.caller = std::make_shared<const Caller>(std::move(caller));
    Response answer;
    answer.status = 0;
    near_.carry(std::move(request), [&](Response response) { answer = std::move(response); });
    return answer;
  }

  static std::vector<std::string> called(const std::string& name) {
    if (name == "e1" || name == "w1" || name == "gone") return {name};
    if (name == "west") return {"w1"};
    return name == "east" ? std::vector<std::string>{"e1", "gone"} : std::vector<std::string>{};
  }

  os::Loop loop_;
  FakePeers peers_{"e1", "w1"}, far_peers_{"w1", "e1"};
  http::Server near_{loop_}, far_{loop_};
  ApiForward e1_{loop_, near_, peers_, called}, w1_{loop_, far_, far_peers_, called};
  json much_;
};

TEST_F(ForwardTest, WhatIsAskedOfAnotherHostIsAnsweredByIt) {
  EXPECT_EQ(ask("GET", "/v1/name").body, "\"w1\"\n");
  EXPECT_EQ(ask("GET", "/v1/name", "west").body, "\"w1\"\n");
  EXPECT_EQ(ask("GET", "/v1/name", "e1").body, "\"e1\"\n");
  EXPECT_EQ(ask("GET", "/v1/nothing").status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/name").status, 405);
  EXPECT_THAT(ask("GET", "/v1/broken").body, HasSubstr("it broke"));
}

TEST_F(ForwardTest, WhoAsksIsWhoAsksThere) {
  const Caller ann{.role = Role::operator_,
                   .name = "ann",
                   .tenant = "red",
                   .from = "192.0.2.7:1",
                   .serial = "2b",
                   .expires = 1LL << 40};
  const auto answer = ask("POST", "/v1/echo", "w1", {{"a", 1}}, ann);
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(json::parse(answer.body), (json{{"body", {{"a", 1}}},
                                            {"query", {{"since", "7"}}},
                                            {"role", "operator"},
                                            {"name", "ann"},
                                            {"tenant", "red"},
                                            {"via", "e1"}}));
  Caller vera = ann;
  vera.role = Role::viewer;
  EXPECT_EQ(ask("POST", "/v1/echo", "w1", {{"a", 1}}, vera).status, 403);
}

// One host's root is no other's.
TEST_F(ForwardTest, RootIsAnOperatorThere) {
  const auto answer = json::parse(ask("POST", "/v1/echo", "w1", {{"a", 1}}).body);
  EXPECT_EQ(answer["role"], "operator");
  EXPECT_EQ(answer["tenant"], "");
  EXPECT_EQ(ask("POST", "/v1/invites").status, 403);
}

TEST_F(ForwardTest, ALargeAnswerComesInPieces) {
  for (int i = 0; i < 40'000; ++i) much_.push_back("\"quoted\" and ümläüted");
  const auto answer = ask("GET", "/v1/much");
  EXPECT_EQ(json::parse(answer.body), much_);
  EXPECT_GT(peers_.requests, 4);
  much_.push_back(std::string(20 << 20, 'x'));
  EXPECT_EQ(ask("GET", "/v1/much").status, 502);
}

TEST_F(ForwardTest, WhatCannotGoThroughIsRefused) {
  EXPECT_THAT(ask("GET", "/v1/events").body, HasSubstr("streams come from"));
  EXPECT_THAT(ask("GET", "/metrics").body, HasSubstr("only JSON"));
  EXPECT_EQ(ask("POST", "/v1/echo", "w1", std::string(600 << 10, 'x')).status, 413);
  EXPECT_THAT(ask("GET", "/v1/name", "nowhere").body, HasSubstr("no host or site 'nowhere'"));
  EXPECT_THAT(ask("GET", "/v1/name", "east").body, HasSubstr("name one of e1, gone"));
  EXPECT_THAT(ask("GET", "/v1/name", "gone").body, HasSubstr("has no session with host gone"));
  peers_.version = kForwardProtocol - 1;
  EXPECT_THAT(ask("GET", "/v1/name").body, HasSubstr("too old"));
  peers_.version = kForwardProtocol;
  peers_.is_silent = true;
  EXPECT_EQ(ask("GET", "/v1/name").status, 504);
}

TEST_F(ForwardTest, APeerMayNotMakeThingsUp) {
  const auto refused = [&](const json& call) {
    bool is_refused = false;
    w1_.on_request({.peer = "e1",
                    .method = "api.call",
                    .answer = [&](const Result<json>& answer) { is_refused = !answer; }},
                   call);
    return is_refused;
  };
  const json good = {{"method", "GET"}, {"path", "/v1/name"}, {"caller", {{"role", "viewer"}}}};
  EXPECT_FALSE(refused(good));
  for (const auto& [where, value] : {std::pair("/path", json(7)),
                                     {"/path", json("name")},
                                     {"/caller", json("root")},
                                     {"/caller/role", json("emperor")},
                                     {"/caller/tenant", json("No Name")}}) {
    json bad = good;
    bad[json::json_pointer(where)] = value;
    EXPECT_TRUE(refused(bad)) << bad;
  }
  EXPECT_TRUE(refused(json::array()));
}

}  // namespace
}  // namespace godwit::agent

// Two guests with a connection to each other move at the same time, in all orders of their steps:
// whatever its packets take, it is there and known for what it is.
#include "agent/endpoint_testing.hh"

namespace godwit::agent::endpoint_testing {
namespace {

using Alive = std::pair<std::size_t, std::size_t>;

// web goes from home to f1, peer from q1 to f2.
struct BothTest : EndpointTest, testing::WithParamInterface<std::string> {
  void SetUp() override {
    EndpointTest::SetUp();
    if (IsSkipped()) return;
    host("home").track({connection(kWeb, kPeer, 5000)});
    host("q1").track({seen_by_peer(connection(kWeb, kPeer, 5000))});
  }
  // 's' is staged, 'r' runs at its target, its uplink stands, 'a': that is there, too.
  void step(Move& move, char what) {
    if (what == 's') {
      move.stage();
      return expect_staged(move);
    }
    if (what == 'r') {
      move.run();
      ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
      move.stand();
      return settle();
    }
    move.arrive();
    settle();
  }
  bool leads(const std::string& at, const std::string& guest, bool is_direct) {
    for (const auto& each : host(at).parts->associations.describe()) {
      if (each["guest"] == guest && (each["direct"] || !is_direct)) return true;
    }
    return false;
  }
  bool forwards(const std::string& at) {
    for (const auto& each : host(at).parts->relays.describe()) {
      if (each["forwards"]) return true;
    }
    return false;
  }
  struct Side {
    Move& move;
    std::string name, home, now;
  };
  // docs/protocol/endpoint.md: which way a packet takes, and whether each host of it does its part.
  bool reaches(const Side& from, const Side& to) {
    const bool is_direct = from.move.alive().first == 1;
    if (!is_direct && !forwards(from.home)) return false;
    if (leads(from.now, to.name, true)) return !is_direct || leads(to.now, from.name, false);
    if (!is_direct && leads(from.home, to.name, true)) return true;
    return forwards(to.home) && (!is_direct || leads(to.home, from.name, false));
  }
};

std::vector<std::string> orders() {
  std::string order = "000111";
  std::vector<std::string> all;
  do all.push_back(order);
  while (std::ranges::next_permutation(order).found &&
         order[0] == '0');  // the rest: by the other's name
  return all;
}

TEST_P(BothTest, TheirConnectionLives) {
  Move one = move_web();
  Move other(host("q1"), host("f2"), peer, "peer", kPeer);
  std::size_t done[2] = {};
  for (const char which : GetParam()) {
    step(which == '0' ? one : other, "sra"[done[which - '0']++]);
    if (HasFatalFailure()) return;
  }
  const Side web_side{one, "web", "home", "f1"}, peer_side{other, "peer", "q1", "f2"};
  ASSERT_TRUE(until([&] { return one.lead().missing().empty() && other.lead().missing().empty(); }))
      << one.lead().missing() << "; " << other.lead().missing();
  // Relays end that none needs, and it lives.
  const auto is_settled = [&](Move& move) {
    return move.described().contains("relay") == (move.alive().second > 0);
  };
  const auto look = [&] {
    host("f1").in([&] { one.lead().uplink_is_here(); });
    host("f2").in([&] { other.lead().uplink_is_here(); });
    settle();
    EXPECT_TRUE(reaches(web_side, peer_side)) << one.described() << other.described();
    EXPECT_TRUE(reaches(peer_side, web_side)) << one.described() << other.described();
    return is_settled(one) && is_settled(other);
  };
  ASSERT_TRUE(until(look));
  look();
  for (Move* each : {&one, &other}) {
    const Alive alive = each->alive();
    EXPECT_EQ(alive.first + alive.second, 1U);
  }
  // Only who was agreed about while the other one left, at no host, is relayed.
  const bool is_between = GetParam().starts_with("001");
  const Alive all_direct{1, 0};
  EXPECT_EQ(one.alive() == all_direct && other.alive() == all_direct, !is_between)
      << one.described() << other.described();
}
INSTANTIATE_TEST_SUITE_P(Orders, BothTest, testing::ValuesIn(orders()),
                         [](const auto& order) { return order.param; });

TEST_F(EndpointTest, WhatIsOverIsForgottenWhereverItWent) {
  host("home").track({connection(kWeb, kPeer, 5000)});
  host("q1").track({seen_by_peer(connection(kWeb, kPeer, 5000))});
  Move one = move_web();
  Move other(host("q1"), host("f2"), peer, "peer", kPeer);
  for (Move* each : {&one, &other}) {
    each->stage();
    expect_staged(*each);
    each->run();
    ASSERT_TRUE(until([&] { return each->lead().is_forwarded(); }));
    each->stand();
    each->arrive();
    settle();
  }
  host("f1").in([&] { os::remove_connections(host("f1").tracked(kWeb, ~0U)); });
  const auto is_over = [&] {
    host("f1").in([&] { one.lead().uplink_is_here(); });
    settle();
    return one.lead().is_over();
  };
  ASSERT_TRUE(until(is_over));
  for (const auto& [name, each] : hosts) {
    for (const auto& known : each->parts->associations.describe()) {
      EXPECT_NE(known["guest"], "web") << name;
    }
  }
}

}  // namespace
}  // namespace godwit::agent::endpoint_testing

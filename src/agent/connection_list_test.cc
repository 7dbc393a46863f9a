#include "agent/connection_list.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <nlohmann/json.hpp>
#include <random>

#include "crypto/keyed_hash.hh"

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const Bytes kSecret(crypto::KeyedHash::kKeySize, std::byte{0x42});
const Bytes kOther(crypto::KeyedHash::kKeySize, std::byte{0x43});
const std::string kGuest = "00112233445566778899aabbccddeeff";
Ip ip(std::string_view text) { return parse_ip(text).value(); }
const std::map<Ip, Ip> kWay{{ip("10.66.1.20"), ip("10.66.2.200")}};

// docs/protocol/endpoint.md
os::Connection golden() {
  return {.protocol = IPPROTO_TCP,
          .guest = ip("10.66.1.20"),
          .peer = ip("10.66.3.10"),
          .guest_port = 22,
          .peer_port = 5000,
          .replied = true,
          .assured = true,
          .state = 3,
          .timeout_s = 431999};
}
constexpr const char* kGoldenLabel = "d6761ec37c65e01b";
constexpr const char* kGoldenProof = "2873b122d4eebaf8cb8249b3e2a65321";

std::string proof(const std::string& what = "update", const std::string& guest = kGuest,
                  std::uint64_t epoch = 7, const std::string& host = "f1",
                  const std::map<Ip, Ip>& way = kWay, const Bytes& secret = kSecret) {
  return proof_of(secret, what, guest, epoch, host, way);
}

TEST(ConnectionListTest, GoldenValues) {
  EXPECT_EQ(label_of(golden(), kSecret), kGoldenLabel);
  EXPECT_EQ(proof(), kGoldenProof);
  EXPECT_EQ(
      to_json({golden()}, kSecret).dump(),
      fmt::format(R"([[6,"10.66.1.20",22,"10.66.3.10",5000,"peer",3,431999,"{}"]])", kGoldenLabel));
  EXPECT_EQ(to_json(std::vector{golden()}).dump(),
            R"([[6,"10.66.1.20",22,"10.66.3.10",5000,"peer",3,431999]])");
  EXPECT_EQ(to_json(kWay).dump(), R"({"10.66.1.20":"10.66.2.200"})");
}

TEST(ConnectionListTest, AProofIsOfAllThatItIsAbout) {
  const std::map<Ip, Ip> two{{ip("10.66.1.20"), ip("10.66.2.200")},
                             {ip("10.66.1.21"), ip("10.66.2.201")}};
  const std::set<std::string> proofs{
      proof(),
      proof("end"),
      proof("update", std::string(32, 'a')),
      proof("update", kGuest, 8),
      proof("update", kGuest, 7, "f2"),
      proof("update", kGuest, 7, "f1", {{ip("10.66.1.21"), ip("10.66.2.200")}}),
      proof("update", kGuest, 7, "f1", {{ip("10.66.1.20"), ip("10.66.2.201")}}),
      proof("update", kGuest, 7, "f1", two),
      proof("update", kGuest, 7, "f1", {}),
      proof("update", kGuest, 7, "f1", kWay, kOther)};
  EXPECT_EQ(proofs.size(), 10U);
  for (const auto& each : proofs) EXPECT_EQ(each.size(), 32U);
}

TEST(ConnectionListTest, ProofsAreComparedToTheLastDigit) {
  EXPECT_TRUE(is_same_proof("", ""));
  EXPECT_TRUE(is_same_proof(proof(), proof()));
  std::string other = proof();
  for (char& digit : other) {
    const char was = std::exchange(digit, digit == '0' ? '1' : '0');
    EXPECT_FALSE(is_same_proof(other, proof()));
    digit = was;
  }
  EXPECT_FALSE(is_same_proof(other.substr(0, 31), other));
  EXPECT_FALSE(is_same_proof(other, other + "0"));
  EXPECT_FALSE(is_same_proof(other, ""));
}

// ---- any connections ----

struct Random {
  std::mt19937_64 numbers{20260101};
  std::uint64_t below(std::uint64_t end) { return numbers() % end; }
  Ip address(bool is4) {
    for (;;) {
      const Ip one =
          is4 ? Ip::of4(static_cast<std::uint32_t>(numbers())) : Ip{numbers(), numbers()};
      if (!one.is_multicast() && !one.is_unspecified() && one.is4() == is4) return one;
    }
  }
  std::uint16_t port() { return static_cast<std::uint16_t>(numbers()); }
  os::Connection connection() {
    const bool is4 = below(2) == 0;
    const std::array<std::uint8_t, 3> protocols{
        IPPROTO_TCP, IPPROTO_UDP, is4 ? std::uint8_t{IPPROTO_ICMP} : std::uint8_t{IPPROTO_ICMPV6}};
    return {.protocol = protocols[below(3)],
            .guest = address(is4),
            .peer = address(is4),
            .guest_port = port(),
            .peer_port = port(),
            .from_guest = below(2) == 0,
            .replied = true,
            .assured = true,
            .state = static_cast<std::uint8_t>(below(10)),
            .timeout_s = static_cast<std::uint32_t>(below(864001))};
  }
};

TEST(ConnectionListTest, AnyConnectionsComeAsTheyWent) {
  Random random;
  for (int i = 0; i < 300; ++i) {
    std::vector<os::Connection> sent(random.below(6));
    for (auto& each : sent) each = random.connection();
    const json labelled = to_json(sent, kSecret);
    for (const auto& each : labelled) EXPECT_LE(each.dump().size(), 200U) << each;
    EXPECT_EQ(parse_connections(to_json(sent)).value(), sent);
    EXPECT_EQ(parse_connections(labelled).value(), sent) << "who has no secret reads them, too";
    const auto parsed = parse_connections(json::parse(labelled.dump()), kSecret);
    ASSERT_TRUE(parsed) << parsed.error().text;
    EXPECT_EQ(*parsed, sent);
    if (sent.empty()) continue;
    EXPECT_FALSE(parse_connections(labelled, kOther));
    EXPECT_FALSE(parse_connections(to_json(sent), kSecret));
    for (const auto& each : sent) {
      EXPECT_TRUE(can_be_told(each));
      EXPECT_EQ(seen_by_peer(seen_by_peer(each)), each);
      EXPECT_NE(seen_by_peer(each), each);
    }
  }
}

TEST(ConnectionListTest, TheLongestConnectionHasLessThan200Bytes) {
  os::Connection longest{.protocol = IPPROTO_ICMPV6,
                         .guest = ip("fd67:6f64:7769:1111:1111:1111:1111:1111"),
                         .peer = ip("fd67:6f64:7769:2222:2222:2222:2222:2222"),
                         .guest_port = 65535,
                         .peer_port = 65535,
                         .from_guest = true,
                         .state = 9,
                         .timeout_s = 864000};
  EXPECT_LT(to_json({longest}, kSecret)[0].dump().size(), 200U);
}

TEST(ConnectionListTest, ThePeerSeesTheOtherEnd) {
  os::Connection each = golden();
  each.guest_tag = 1;
  each.peer_tag = 2;
  const auto seen = seen_by_peer(each);
  EXPECT_EQ(seen.guest, each.peer);
  EXPECT_EQ(seen.peer, each.guest);
  EXPECT_EQ(seen.guest_port, 5000);
  EXPECT_EQ(seen.peer_port, 22);
  EXPECT_EQ(seen.guest_tag, 2U);
  EXPECT_EQ(seen.peer_tag, 1U);
  EXPECT_TRUE(seen.from_guest);
  EXPECT_EQ(seen.state, each.state);
}

TEST(ConnectionListTest, ALabelIsOfOneConnection) {
  Random random;
  for (int i = 0; i < 200; ++i) {
    const os::Connection made = random.connection();
    std::vector<os::Connection> others(6, made);
    others[0].protocol = static_cast<std::uint8_t>(made.protocol + 1);
    others[1].guest.low ^= 1;
    others[2].peer.low ^= 1;
    others[3].guest_port ^= 1;
    others[4].peer_port ^= 1;
    others[5] = seen_by_peer(made);
    std::set<std::string> labels{label_of(made, kSecret), label_of(made, kOther)};
    for (const auto& each : others) labels.insert(label_of(each, kSecret));
    EXPECT_EQ(labels.size(), 8U);
    // And of nothing that changes while it lives.
    os::Connection later = made;
    later.state = 4;
    later.timeout_s = 1;
    later.mark = 7;
    EXPECT_EQ(label_of(later, kSecret), label_of(made, kSecret));
  }
}

// ---- what is refused ----

json with(std::size_t field, const json& value) {
  json list = to_json({golden()}, kSecret);
  list[0][field] = value;
  return json::parse(list.dump());  // numbers are as they come
}

TEST(ConnectionListTest, RefusesEveryMalformedField) {
  const std::vector<json> none_at_all{nullptr, true, -1, 1.5, json::array(), json::object()};
  for (std::size_t field = 0; field < 8; ++field) {
    for (const json& bad : none_at_all) {
      EXPECT_FALSE(parse_connections(with(field, bad))) << field << " " << bad;
    }
    json cut = to_json({golden()});
    cut[0].erase(field);
    EXPECT_FALSE(parse_connections(cut)) << cut;
  }
  for (const std::size_t number : {0U, 2U, 4U, 6U, 7U}) {
    EXPECT_FALSE(parse_connections(with(number, "6"))) << number;
    EXPECT_FALSE(parse_connections(with(number, std::uint64_t{1} << 63))) << number;
  }
  for (const int protocol :
       {0, 1 + IPPROTO_TCP, int{IPPROTO_SCTP}, int{IPPROTO_ICMPV6}, 256, 262}) {
    EXPECT_FALSE(parse_connections(with(0, protocol))) << protocol;
  }
  for (const std::size_t address : {1U, 3U}) {
    for (const char* bad : {"", "x", "10.66.1", "10.66.1.20 ", "10.66.1.20/32", "0.0.0.0",
                            "::", "224.0.0.251", "ff02::fb", "fd01::20", "10.66.1.20%eth0"}) {
      EXPECT_FALSE(parse_connections(with(address, bad))) << address << " " << bad;
    }
  }
  for (const std::size_t port : {2U, 4U}) {
    EXPECT_FALSE(parse_connections(with(port, 65536)));
    EXPECT_TRUE(parse_connections(with(port, 65535)));
  }
  for (const char* bad : {"", "Guest", "guest ", "host"}) {
    EXPECT_FALSE(parse_connections(with(5, bad))) << bad;
  }
  EXPECT_TRUE(parse_connections(with(6, 9)));
  EXPECT_FALSE(parse_connections(with(6, 10)));
  EXPECT_TRUE(parse_connections(with(7, 864000)));
  EXPECT_FALSE(parse_connections(with(7, 864001)));
}

TEST(ConnectionListTest, RefusesAnotherLabel) {
  EXPECT_TRUE(parse_connections(to_json({golden()}, kSecret), kSecret));
  const std::string right = label_of(golden(), kSecret);
  std::string upper = right;
  for (char& digit : upper) digit = static_cast<char>(std::toupper(digit));
  ASSERT_NE(upper, right);
  for (const json& bad :
       {json(nullptr), json(0), json::array(), json(""), json("0000000000000000"), json(upper),
        json(right.substr(0, 15)), json(right + "0"), json(label_of(golden(), kOther))}) {
    const auto parsed = parse_connections(with(8, bad), kSecret);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_THAT(parsed.error().text, HasSubstr("label"));
  }
  // Of one of many.
  json list = to_json({golden(), golden()}, kSecret);
  list[1][2] = 23;
  EXPECT_FALSE(parse_connections(list, kSecret));
  for (const auto& [field, value] : {std::pair<int, json>{0, int{IPPROTO_UDP}},
                                     {1, "10.66.1.21"},
                                     {2, 23},
                                     {3, "10.66.3.11"},
                                     {4, 5001}}) {
    EXPECT_TRUE(parse_connections(with(static_cast<std::size_t>(field), value)));
    EXPECT_FALSE(parse_connections(with(static_cast<std::size_t>(field), value), kSecret)) << field;
  }
}

TEST(ConnectionListTest, RefusesWhatIsNoListOrTooLong) {
  for (const json& bad : {json(nullptr), json("x"), json(1), json::object(), json{nullptr}, json{1},
                          json{"x"}, json::array({json::object()}), json::array({json::array()})}) {
    EXPECT_FALSE(parse_connections(bad)) << bad;
  }
  EXPECT_TRUE(parse_connections(json::array()).value().empty());
  json many = json::array();
  const json one = to_json(std::vector{golden()})[0];
  for (std::size_t i = 0; i < kMostConnections; ++i) many.push_back(one);
  EXPECT_EQ(parse_connections(many).value().size(), kMostConnections);
  many.push_back(one);
  EXPECT_FALSE(parse_connections(many));
}

TEST(ConnectionListTest, SomeDoNotTravel) {
  EXPECT_TRUE(can_be_told(golden()));
  const auto refused = [](auto&& change) {
    os::Connection each = golden();
    change(each);
    EXPECT_FALSE(can_be_told(each));
    EXPECT_FALSE(parse_connections(to_json(std::vector{each})));
  };
  refused([](auto& each) { each.protocol = IPPROTO_SCTP; });
  refused([](auto& each) { each.protocol = IPPROTO_ICMPV6; });
  refused([](auto& each) { each.peer = ip("224.0.0.251"); });
  refused([](auto& each) { each.guest = ip("0.0.0.0"); });
  refused([](auto& each) { each.peer = ip("fd01::7"); });
  refused([](auto& each) { each.state = 10; });
  // Timeouts are a host's own: more than ten days are ten.
  os::Connection patient = golden();
  patient.timeout_s = 30 * 86400;
  EXPECT_TRUE(can_be_told(patient));
  EXPECT_EQ(parse_connections(to_json(std::vector{patient})).value()[0].timeout_s, 864000U);
}

TEST(ConnectionListTest, AddressesComeAsTheyWent) {
  const std::map<Ip, Ip> both{{ip("10.66.1.20"), ip("10.66.2.200")},
                              {ip("fd67::1"), ip("fd67::2")}};
  EXPECT_EQ(parse_addresses(to_json(both)).value(), both);
  EXPECT_TRUE(parse_addresses(json::object()).value().empty());
  for (const json& bad :
       {json(nullptr), json("x"), json::array(), json{{"x", "10.0.0.1"}}, json{{"10.0.0.1", "x"}},
        json{{"10.0.0.1", 7}}, json{{"10.0.0.1", nullptr}}, json{{"10.0.0.1", "fd01::1"}},
        json{{"fd01::1", "10.0.0.1"}}, json{{"10.0.0.1", "0.0.0.0"}},
        json{{"10.0.0.1", "224.0.0.1"}}, json{{"fd01::1", "::"}}}) {
    EXPECT_FALSE(parse_addresses(bad)) << bad;
  }
}

}  // namespace
}  // namespace godwit::agent

// A guest with an address of f1's network on its second NIC comes to f1 by endpoint, and what f1's
// kernel is told of who asked it what.
#include "agent/endpoint_testing.hh"
#include "os/nftables.hh"

namespace godwit::agent::endpoint_testing {
namespace {

using testing::HasSubstr;
using testing::Not;

const Ip kSecond = ip("10.66.2.50"), kStranger = ip("10.99.0.9");

struct AskedTest : EndpointTest {
  void SetUp() override {
    EndpointTest::SetUp();
    if (IsSkipped()) return;
    auto datagrams = connection(kWeb, kStranger, 6000);
    datagrams.protocol = IPPROTO_UDP;
    datagrams.state = 0;
    datagrams.timeout_s = 300;
    host("home").track({datagrams, connection(kWeb, kStranger, 6001)});
    first = add_nic("home", "nic", "web");
    host("f1").add_guest("second", kSecond);
    second = add_nic("f1", "nic-for-f1", "second");
  }
  PortId add_nic(const std::string& at, const std::string& name, const std::string& uplink) {
    Host& its = host(at);
    bool is_wired = false;
    const PortId nic = its.in([&] {
      const auto made = its.network.nic_for(name, std::string(kDefaultTenant), "vm", {});
      EXPECT_TRUE(made && its.network.attach_nic(made->id, "vm"));
      its.network.connect({.a = at + "/" + name, .b = at + "/" + uplink, .tenant = {}},
                          [&](const Result<>& done) { is_wired = done.has_value(); });
      return made->id;
    });
    EXPECT_TRUE(until([&] { return is_wired; }));
    return nic;
  }
  // By whatever brings the vm.
  void bring_nic() {
    const json nic =
        host("home").in([&] { return host("home").network.describe_nic(first).value(); });
    host("f1").in([&] {
      auto& network = host("f1").network;
      EXPECT_TRUE(network.prepare_held(nic, PortKind::nic, "home", 7) &&
                  network.attach_nic(first, "vm"));
      network.run({first}, [](auto&&...) {});
    });
    host("home").in([&] { host("home").network.release({first}, 7, [] {}); });
  }
  std::string told(const std::string& set) {
    settle();
    return host("f1").in(
        [&] { return os::query_nftables("list set inet godwit_asked " + set).value_or("none"); });
  }
  void expect_known() {
    EXPECT_THAT(told("chosen4"), HasSubstr(kSecond.text()));
    EXPECT_THAT(told("others4"), HasSubstr(kWeb.text()));
    EXPECT_THAT(told("asked4"), HasSubstr("6000"));
    EXPECT_THAT(told("asked4"), Not(HasSubstr("6001"))) << "of TCP";
  }

  PortId first, second;
};

TEST_F(AskedTest, WhoAskedAGuestThatCameIsKnownForAsLongAsItsUplinksAreHere) {
  Move move = move_web();
  EXPECT_EQ(told("chosen4"), "none");
  bring_nic();
  go(move);
  expect_known();
  // It goes on by wire.
  host("f1").in([&] { host("f1").network.release({first, second}, 9, [] {}); });
  settle();
  host("f1").in([&] { EXPECT_TRUE(os::set_asked_rules({})); });
  move.restart();
  expect_known();
  host("f1").in([&] { host("f1").network.release({web}, 9, [] {}); });
  EXPECT_EQ(told("chosen4"), "none");
  EXPECT_EQ(host("f1").store->list("guest nics").size(), 0U);
}

// Nor is one whose uplinks are both at home.
TEST_F(AskedTest, AGuestThatIsOfOneNetworkIsNone) {
  host("f1").add_guest("another", ip("10.66.2.51"));
  add_nic("f1", "another-nic", "another");
  EXPECT_EQ(told("chosen4"), "none");
}

}  // namespace
}  // namespace godwit::agent::endpoint_testing

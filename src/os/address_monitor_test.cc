#include "os/address_monitor.hh"

#include <gtest/gtest.h>
#include <unistd.h>

#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

const Endpoint kFar{.address = {192, 0, 2, 1}, .port = 9};

TEST(AddressMonitor, TellsOnceOfAnAddressThatIsReplaced) {
  if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  const auto netns = NetNamespace::create();
  Loop loop;
  int told = 0;
  std::optional<AddressMonitor> monitor;
  std::optional<Netlink> netlink;
  netns.run([&] {
    netlink.emplace();
    netlink->add_veth("left", "right");
    netlink->set_up("left");
    netlink->set_up("right");
    netlink->add_address("left", "10.0.0.2/24");
    netlink->add_route("0.0.0.0/0", "10.0.0.1", "left");
    monitor.emplace(loop, [&] { ++told; });
    EXPECT_EQ(source_towards(kFar)->address_text(), "10.0.0.2");
    netlink->remove_address("left", "10.0.0.2/24");
    EXPECT_FALSE(source_towards(kFar));
    netlink->add_address("left", "10.0.0.3/24");
    netlink->add_route("0.0.0.0/0", "10.0.0.1", "left");
    EXPECT_EQ(source_towards(kFar)->address_text(), "10.0.0.3");
  });
  EXPECT_TRUE(run_until(loop, [&] { return told > 0; }));
  const Instant end = loop.now() + AddressMonitor::kSettle * 2;
  while (loop.now() < end) loop.run_once(milliseconds(20));
  EXPECT_EQ(told, 1);
}

TEST(AddressMonitor, TheSourceTowardsLoopbackIsLoopback) {
  const auto source = source_towards(Endpoint::loopback(9));
  ASSERT_TRUE(source);
  EXPECT_EQ(source->address_text(), "127.0.0.1");
  EXPECT_EQ(source->port, 0);
}

}  // namespace
}  // namespace godwit::os

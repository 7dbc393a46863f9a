// The bounds of the doctor's judgement, each from both sides.
#include "doctor/judge.hh"

#include <gtest/gtest.h>

namespace godwit::doctor {
namespace {

using std::chrono::days;
using std::chrono::sys_seconds;

constexpr ByteCount mib(std::uint64_t count) { return {count << 20U}; }

TEST(Judge, KernelIsComparedByNumbers) {
  EXPECT_EQ(judge_kernel("6.1.0-31-cloud-amd64").level, Level::ok);
  EXPECT_EQ(judge_kernel("5.12.0").level, Level::ok);
  EXPECT_EQ(judge_kernel("5.4.0-100-generic").level, Level::fail);
  EXPECT_EQ(judge_kernel("unknown").level, Level::warn);
}

TEST(Judge, MemoryAndDiskFailBeforeTheAgentDoes) {
  EXPECT_EQ(judge_memory(mib(4096), mib(255)).level, Level::fail);
  EXPECT_EQ(judge_memory(mib(4096), mib(512)).level, Level::warn);
  EXPECT_EQ(judge_memory(mib(4096), mib(2048)).level, Level::ok);
  EXPECT_EQ(judge_disk("/var", mib(15), true).level, Level::fail);
  EXPECT_EQ(judge_disk("/var", mib(100), true).level, Level::warn);
  EXPECT_EQ(judge_disk("/var", mib(1000), true).level, Level::ok);
  EXPECT_EQ(judge_disk("/var", mib(1000), false).level, Level::warn);
}

TEST(Judge, CertificateNamesItsHostAndItsDay) {
  const sys_seconds now{days(20000)};
  const auto judge = [&](days from, days until) {
    return judge_certificate("east", now + from, now + until, now);
  };
  EXPECT_EQ(judge(days(-1), days(31)).level, Level::ok);
  EXPECT_EQ(judge(days(-1), days(29)).level, Level::warn);
  EXPECT_EQ(judge(days(-9), days(0)).level, Level::fail);
  EXPECT_EQ(judge(days(1), days(366)).level, Level::fail);
  EXPECT_EQ(judge(days(-1), days(31)).detail, "of host east, valid until 2024-11-04 (31 days)");
  EXPECT_NE(judge(days(1), days(366)).remedy.find("clock"), std::string::npos);
}

TEST(Judge, ConntrackIsJudgedByItsShare) {
  EXPECT_EQ(judge_conntrack(std::nullopt, std::nullopt).level, Level::ok);
  EXPECT_EQ(judge_conntrack(79, 100).level, Level::ok);
  EXPECT_EQ(judge_conntrack(80, 100).level, Level::warn);
  EXPECT_EQ(judge_conntrack(5, 0).level, Level::ok);
}

TEST(Judge, DirectoriesAreClosedToOthers) {
  EXPECT_EQ(judge_mode("state-dir", "/d", 0700, 0700).level, Level::ok);
  EXPECT_EQ(judge_mode("state-dir", "/d", 0500, 0700).level, Level::ok);
  EXPECT_EQ(judge_mode("state-dir", "/d", 0755, 0700).level, Level::fail);
  EXPECT_EQ(judge_mode("run-dir", "/d", 0711, 0711).level, Level::ok);
  EXPECT_EQ(judge_mode("run-dir", "/d", 0777, 0711).remedy, "chmod 0711 /d");
}

TEST(Judge, PrivateAddressesAreHiddenFromHostsElsewhere) {
  for (const char* hidden : {"10.0.0.1", "172.16.0.1", "172.31.255.1", "192.168.1.1", "100.64.0.1"})
    EXPECT_EQ(judge_address(hidden).level, Level::warn) << hidden;
  for (const char* open : {"192.0.2.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2001:db8::1"})
    EXPECT_EQ(judge_address(open).level, Level::ok) << open;
  EXPECT_EQ(judge_address("").level, Level::fail);
}

TEST(Judge, MtuAndClock) {
  EXPECT_EQ(judge_mtu("eth0", 1500, 1400).level, Level::ok);
  EXPECT_EQ(judge_mtu("eth0", 1399, 1400).level, Level::fail);
  EXPECT_EQ(judge_clock(true, std::chrono::microseconds(500)).level, Level::ok);
  EXPECT_EQ(judge_clock(false, std::chrono::microseconds(0)).level, Level::warn);
}

TEST(Findings, TheWorstCounts) {
  EXPECT_EQ(worst({}), Level::ok);
  EXPECT_EQ(worst({ok("a", ""), failed("b", "", ""), warn("c", "", "")}), Level::fail);
}

}  // namespace
}  // namespace godwit::doctor

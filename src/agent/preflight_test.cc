// What a preflight tells of a host that cannot be asked.
#include "agent/preflight.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/host_testing.hh"
#include "agent/played_qemu_testing.hh"
#include "base/test_directory.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

class PreflightTest : public HostTest {
 protected:
  PreflightTest() : HostTest("/nonexistent/godwit-preflight-test") {}

  static VmRecord record_of(const os::Child& process) {
    VmRecord record{.spec = {}, .process = process.identity(), .stopped = {}, .arriving = {}};
    record.spec.name = "web";
    record.spec.disks.push_back({.name = "root", .size = ByteCount{64 << 20}});
    return record;
  }
  // Names of the checks that failed, and what they say.
  std::vector<std::pair<std::string, std::string>> failures() {
    std::optional<Findings> findings;
    preflight(host_.of_moves, vm_, "e1", Wish{},
              [&](Findings found) { findings = std::move(found); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return findings.has_value(); }));
    std::vector<std::pair<std::string, std::string>> failed;
    for (const Check& check : findings.value_or(Findings{}).checks) {
      if (!check.ok) failed.emplace_back(check.name, check.detail);
    }
    return failed;
  }

  TestDirectory directory_;
  PlayedQemu qemu_{loop_, (directory_ / "qmp.sock").string(),
                   [](const auto&, const auto&) { return std::nullopt; }};
  Vm vm_{loop_, record_of(qemu_.process()), qemu::VmPaths{directory_.path()},
         os::Child::adopt(qemu_.process().identity()).value()};
};

// How old its agent is nobody knows.
TEST_F(PreflightTest, OfAHostWithoutASessionOnlyThatIsTold) {
  EXPECT_THAT(failures(), ElementsAre(Pair("session", HasSubstr("no session with host e1"))));
}

TEST_F(PreflightTest, AnAgentThatIsTooOldForDisksIsTold) {
  peers_.has_session = true;
  EXPECT_THAT(failures(), ElementsAre(Pair("disks", HasSubstr("too old for disks"))));
}

}  // namespace
}  // namespace godwit::agent

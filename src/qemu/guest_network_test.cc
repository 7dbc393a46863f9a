#include "qemu/guest_network.hh"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/base64.hh"
#include "base/test_directory.hh"
#include "os/child.hh"
#include "os/test_wait.hh"
#include "qemu/guest_agent_testing.hh"
#include "qemu/guest_network_script.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

NicSpec example() {
  return {.port = *PortId::parse("b0000000000000000000000000000002"),
          .name = "uplink",
          .mac = "52:54:00:00:00:05",
          .slot = 1,
          .network = NicNetwork{
              .addresses = {*parse_ip_prefix("203.0.113.7/24"), *parse_ip_prefix("fd77::7/128")},
              .gateway4 = *parse_ip("203.0.113.1"),
              .gateway6 = *parse_ip("fe80::1"),
              .resolvers = {*parse_ip("192.0.2.53")},
              .mtu = 1400}};
}

struct GuestNetworkTest : ::testing::Test {
  std::string reply(const json& request) {
    if (request.at("execute") == "guest-exec") return R"({"return": {"pid": 7}})";
    return json({{"return",
                  {{"exited", true},
                   {"exitcode", exit_code},
                   {"out-data", to_base64(out)},
                   {"err-data", to_base64("sh: no\n")}}}})
        .dump();
  }
  Result<GuestNetworkReport> take(
      const std::function<void(GuestAgent&, GuestNetworkAnswer)>& function) {
    FakeGuest guest([this](const json& request) { return reply(request); }, 1 << 20);
    GuestAgent agent(loop, guest.link.take_a());
    auto answer = std::make_shared<std::optional<Result<GuestNetworkReport>>>();
    function(agent, [answer](Result<GuestNetworkReport> got) { *answer = std::move(got); });
    EXPECT_TRUE(os::run_until(loop, [&] { return guest.link.settle(), answer->has_value(); }));
    arguments.clear();
    if (!guest.requests.empty()) arguments = guest.requests[0].at("arguments").at("arg");
    return answer->value_or(fail("nothing"));
  }
  Result<GuestNetworkReport> configured() {
    return take([](GuestAgent& agent, GuestNetworkAnswer answer) {
      configure(agent, example(), std::move(answer));
    });
  }

  os::Loop loop;
  std::string out = "step begin 10.00\nstep up 10.25\n";
  int exit_code = 0;
  std::vector<std::string> arguments;
};

TEST_F(GuestNetworkTest, ValuesGoBesideTheScriptNotIntoIt) {
  ASSERT_TRUE(configured());
  EXPECT_THAT(arguments,
              ElementsAre("-c", kGuestNetworkScript, "godwit-network", "configure",
                          "mac=52:54:00:00:00:05", "mtu=1400", "address=203.0.113.7/24",
                          "network=203.0.113.0/24", "address=fd77::7/128", "gateway4=203.0.113.1",
                          "gateway6=fe80::1", "resolver=192.0.2.53"));
  ASSERT_TRUE(take([](GuestAgent& agent, GuestNetworkAnswer answer) {
    make_default(agent, example(), true, std::move(answer));
  }));
  EXPECT_EQ(arguments[3], "make_default");
  EXPECT_EQ(arguments.back(), "drop_old=1");
}

TEST_F(GuestNetworkTest, ReadsWhatTheGuestDid) {
  out =
      "step begin 10.00\ninterface eth1\nstep interface 10.01\nchecked4\nnote no such thing\n"
      "answers4 yes\nanswers6 no\nmptcp\ndropped 10.0.0.2\nstep up 12.25\n";
  const auto report = configured();
  ASSERT_TRUE(report) << report.error().text;
  EXPECT_EQ(report->interface, "eth1");
  EXPECT_TRUE(report->checked_duplicates4);
  EXPECT_EQ(report->gateway4_answers, true);
  EXPECT_EQ(report->gateway6_answers, false);
  EXPECT_TRUE(report->mptcp);
  EXPECT_THAT(report->notes, ElementsAre("no such thing"));
  EXPECT_THAT(report->dropped, ElementsAre("10.0.0.2"));
  ASSERT_EQ(report->steps.size(), 2U);
  EXPECT_EQ(report->steps[1].name, "up");
  EXPECT_EQ(report->steps[1].at, milliseconds(2250));
  EXPECT_EQ(to_json(*report)["steps"][1]["at_ms"], 2250);
}

TEST_F(GuestNetworkTest, AFailureIsTheGuestsOwnWords) {
  out = "step begin 1.0\nerror 203.0.113.7/24 is in use\x1b[31m\n";
  exit_code = 1;
  const auto report = configured();
  ASSERT_FALSE(report);
  EXPECT_THAT(report.error().text, HasSubstr("203.0.113.7/24 is in use?[31m"));
  out.clear();
  EXPECT_THAT(configured().error().text, HasSubstr("ended with 1: sh: no"));
}

TEST_F(GuestNetworkTest, HostileWordsAreBounded) {
  out = "step begin nan\nstep x 1e300\nstep y -5\nstep\nanswers4\nstep z 1.0\n";
  for (int i = 0; i < 1000; ++i) out += "note " + std::string(20, 'x') + "\n";
  const auto report = configured();
  ASSERT_TRUE(report) << report.error().text;
  EXPECT_EQ(report->steps.size(), 1U);
  EXPECT_LT(report->notes.size(), 100U);
  EXPECT_EQ(report->gateway4_answers, false);
}

// Were one of our checks to fail, the shell would still take it for a word.
TEST_F(GuestNetworkTest, TheScriptNeverRunsAValue) {
  const TestDirectory directory;
  const std::string mark = (directory / "ran").string();
  for (const std::string& hostile :
       {"$(touch " + mark + ")", "`touch " + mark + "`", "; touch " + mark + " ;",
        "'\"; touch " + mark + "; \"'", "\n touch " + mark + "\n"}) {
    os::Command shell{
        .argv = {"/bin/sh", "-c", std::string(kGuestNetworkScript), "x", "make_default"}};
    for (const char* key :
         {"mac", "mtu", "address", "network", "gateway4", "gateway6", "resolver", "drop_old"}) {
      shell.argv.push_back(fmt::format("{}={}", key, hostile));
    }
    const auto result = os::run(shell);
    ASSERT_TRUE(result) << result.error().text;
    EXPECT_FALSE(result->status.success());
    EXPECT_FALSE(std::filesystem::exists(mark)) << hostile;
  }
}

}  // namespace
}  // namespace godwit::qemu

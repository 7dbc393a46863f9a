// The whole tool against a scripted agent: arguments, requests, tables, JSON, exit statuses.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "cli/fake_agent.hh"

namespace godwit::cli {
namespace {

struct CliTest : ::testing::Test {
  Ran godwit(std::vector<std::string> arguments) {
    if (!std::exchange(started, true)) agent.start();
    return run_cli(agent.socket(), std::move(arguments));
  }
  FakeAgent agent;
  bool started = false;
};

TEST_F(CliTest, MistakesInTheArgumentsExit2AndAskNobody) {
  const std::vector<std::vector<std::string>> mistakes = {
      {},
      {"frobnicate"},
      {"vm"},
      {"vm", "show"},
      {"vm", "show", "Not_A_Name"},
      {"vm", "run", "web"},
      {"vm", "run", "web", "--memory", "512", "--kernel", "/bin/sh"},
      {"vm", "run", "web", "--kernel", "/nonexistent"},
      {"vm", "run", "web", "--kernel", "/bin/sh", "--cpus", "0"},
      {"image", "add", "base"},
      {"image", "add", "base", "/nonexistent"},
      {"image", "add", "base", "/bin/sh", "--format", "vmdk"},
      {"image", "add", "base", "/bin/sh", "--sha256", "abc"},
      {"migrate", "web"},
      {"migrate", "web", "--to", "west", "--max-downtime", "300"},
      {"migrate", "web", "--to", "west", "--bandwidth", "200Mbps"},
      {"migrate", "web", "--to", "west", "--on-diverge", "pray"},
      {"migrate", "web", "--to", "west", "--stop-policy", "clever"},
      {"migrate", "web", "--to", "west", "--at", "yesterday"},
      {"migrate", "web", "--to", "west", "--wait", "--detach"},
      {"migrate", "web", "--to", "west", "--configure", "after"},
      {"migrate", "web", "--to", "west", "--strategy", "endpoint", "--resolver", "10.0.0.53"},
      {"migrate", "web", "--to", "west", "--strategy", "secondary-nic", "--detach"},
      {"migrate", "web", "api", "--to", "west", "--strategy", "secondary-nic"},
      {"vm", "nic", "configure", "web", "more", "--address", "10.0.0.7/24", "--drop-old"},
      {"migrate", "web", "--to", "west", "--hold", "--at", "+1min"},
      {"migration", "set", "m1"},
      {"port", "add", "lan0", "--bridge", "br0", "--uplink"},
      {"port", "add", "lan0", "--address", "10.0.0.1/24"},
      {"join", "no-token"},
      {"host", "trust", "add", "card"},
      {"host", "trust", "add", "card", "--port", "p", "--as", "b@d"},
      {"host", "trust", "rm"},
      {"connect", "only-one"},
      {"doctor", "--port", "high"},
      {"debug", "stream", "bench"},
      {"debug", "stream", "bench", "/bin/sh", "--level", "0"},
      {"debug", "stream", "record", "web"},
      {"debug", "stream", "record", "web", "/nonexistent/x", "--rounds", "0"},
      {"debug", "stream", "record", "web", "/nonexistent/x", "--rounds", "2", "--for", "3s"},
      {"-H", "east", "--identity", "/nonexistent", "vm", "ls"},
  };
  for (const auto& arguments : mistakes) {
    const auto ran =
        arguments.empty() || arguments[0] != "-H" ? godwit(arguments) : run_cli("", arguments);
    std::string line;
    for (const auto& argument : arguments) line += " " + argument;
    EXPECT_EQ(ran.status, 2) << line;
    EXPECT_NE(ran.err, "") << line;
    EXPECT_EQ(ran.out, "") << line;
  }
  EXPECT_TRUE(agent.asked().empty());
}

TEST_F(CliTest, ErrorsNameTheRemedy) {
  EXPECT_NE(godwit({"migrate", "web", "--to", "b", "--max-downtime", "300"})
                .err.find("'300' has no unit"),
            std::string::npos);
  const auto stranger = run_cli("", {"-H", "east", "--identity", "/nonexistent", "vm", "ls"});
  EXPECT_NE(stranger.err.find("godwit user add"), std::string::npos) << stranger.err;
  const auto nobody = run_cli("/nonexistent/agent.sock", {"vm", "ls"});
  EXPECT_EQ(nobody.status, 1);
  EXPECT_NE(nobody.err.find("is godwitd running?"), std::string::npos);
}

TEST_F(CliTest, HelpExitsZero) {
  const auto ran = godwit({"--help"});
  EXPECT_EQ(ran.status, 0);
  for (const char* word : {"migrate", "migration", "lab", "Exit status", "400mbit"}) {
    EXPECT_NE(ran.out.find(word), std::string::npos) << word;
  }
  EXPECT_EQ(godwit({"migrate", "--help"}).status, 0);
}

TEST_F(CliTest, WordsAreCompletedFromTheTreeAndNamesFromTheAgent) {
  agent.answer("GET /v1/vms", {{{"name", "web"}, {"state", "running"}}, {{"name", "db"}}});
  agent.answer("GET /v1/components", {{{"name", "sw1"}, {"type", "switch"}}});
  agent.answer("GET /v1/hosts", {{{"name", "e1"}, {"site", "east"}, {"state", "self"}}});
  agent.answer("GET /v1/images", {{{"name", "base"}, {"state", "ready"}}});
  agent.start();
  started = true;
  const auto completed = [&](std::vector<std::string> words) {
    words.insert(words.begin(), {"complete", "--socket", agent.socket()});
    const auto ran = run_cli("", words);
    EXPECT_EQ(ran.status, 0);
    EXPECT_EQ(ran.err, "");
    return ran.out;
  };
  EXPECT_EQ(completed({"vm", "sh"}), "show\tShow one vm\n");
  EXPECT_EQ(completed({"vm", "show", ""}), "db\t\nweb\trunning\n");
  EXPECT_EQ(completed({"vm", "show", "w"}), "web\trunning\n");
  EXPECT_EQ(completed({"migrate", "--to", "e1", "w"}), "web\trunning\n");
  EXPECT_EQ(completed({"migrate", "comp"}), "component/sw1\tswitch\n");
  EXPECT_EQ(completed({"migrate", "web", "--to", ""}), "e1\tself\neast\tsite\n");
  EXPECT_EQ(completed({"migrate", "--on-diverge=pa"}), "--on-diverge=pause\t\n");
  EXPECT_EQ(completed({"vm", "run", "x", "--kernel", ""}), ":file\n");
  EXPECT_EQ(completed({"vm", "show", "web", ""}), "") << "it takes one name";
  EXPECT_EQ(completed({"image", "rm", ""}), "base\tready\n");
  EXPECT_EQ(completed({"image", "add", "x", ""}), ":file\n");
  EXPECT_EQ(completed({"wire", "show", ""}), "") << "the agent refuses";
  EXPECT_TRUE(completed({"vm", "stop", "--"}).contains("--force\t"));
  EXPECT_TRUE(completed({""}).contains("migrate\t"));
}

TEST_F(CliTest, TheAuditLogIsATable) {
  agent.answer("GET /v1/audit", {{{"time", 1795252800},
                                  {"who", "ann"},
                                  {"role", "operator"},
                                  {"from", "192.0.2.7:1"},
                                  {"did", "POST /v1/migrations"},
                                  {"on", {{"to", "w1"}, {"vm", "web"}}},
                                  {"status", 202}},
                                 {{"time", 1795252801},
                                  {"who", "vera"},
                                  {"did", "DELETE /v1/ports/p"},
                                  {"status", 403},
                                  {"error", "vera is a viewer"}}});
  const auto ran = godwit({"audit", "ls", "--since", "2h"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_TRUE(ran.out.contains("2026-11-21 09:20 UTC")) << ran.out;
  EXPECT_TRUE(ran.out.contains("to=w1 vm=web")) << ran.out;
  EXPECT_TRUE(ran.out.contains("vera is a viewer")) << ran.out;
  EXPECT_EQ(godwit({"audit", "ls", "--since", "teatime"}).status, 2);
}

TEST_F(CliTest, TablesAlign) {
  agent.answer("GET /v1/hosts", {{{"name", "east"},
                                  {"site", "e"},
                                  {"address", "10.0.0.1"},
                                  {"state", "self"},
                                  {"rtt_ms", nullptr}},
                                 {{"name", "western-host"},
                                  {"site", "w"},
                                  {"address", "10.0.0.2"},
                                  {"state", "up"},
                                  {"rtt_ms", 40.128}}});
  EXPECT_EQ(godwit({"host", "ls"}).out,
            "HOST          SITE  ADDRESS   STATE      RTT\n"
            "east          e     10.0.0.1  self         -\n"
            "western-host  w     10.0.0.2  up     40.1 ms\n");
}

TEST_F(CliTest, AnotherFleetIsTrustedByItsCard) {
  const json card = {{"fleet", "beta"}, {"host", "b1"}, {"fingerprint", "0123456789ab"}};
  agent.answer("GET /v1/card", card);
  agent.answer("POST /v1/trust",
               {{"fleet", "shop"}, {"host", "b1@shop"}, {"fingerprint", "0123456789ab"}});
  agent.answer("DELETE /v1/trust/shop", json::object());
  const auto offered = godwit({"host", "trust", "offer"});
  EXPECT_EQ(json::parse(offered.out), card);
  EXPECT_TRUE(offered.err.contains("0123 4567 89ab")) << offered.err;  // can be read out
  const TestDirectory directory;
  const std::string file = (directory / "card").string();
  std::ofstream(file) << offered.out;
  const auto added =
      godwit({"host", "trust", "add", file, "--port", "p", "--port", "q", "--as", "shop"});
  EXPECT_EQ(added.status, 0) << added.err;
  EXPECT_TRUE(added.out.contains("fleet shop may have wires to p, q")) << added.out;
  EXPECT_TRUE(added.err.contains("0123 4567 89ab")) << added.err;
  EXPECT_EQ(agent.body_of("POST /v1/trust"),
            json({{"card", card}, {"ports", {"p", "q"}}, {"as", "shop"}}));
  EXPECT_EQ(godwit({"host", "trust", "rm", "shop", "--port", "p"}).status, 0);
  EXPECT_EQ(agent.body_of("DELETE /v1/trust/shop"), json({{"ports", {"p"}}}));
  std::ofstream(file) << "no card";
  EXPECT_TRUE(godwit({"host", "trust", "add", file, "--port", "p"}).err.contains("holds no card"));
}

TEST_F(CliTest, HostsOfOtherFleetsAreToldApart) {
  agent.answer("GET /v1/hosts", {{{"name", "a1"}, {"site", "a"}, {"state", "self"}}});
  agent.answer("GET /v1/trust",
               {{{"fleet", "beta"},
                 {"fingerprint", "0123"},
                 {"ports", {{{"name", "p"}, {"tenant", "red"}}}},
                 {"hosts", {{{"name", "b1@beta"}, {"state", "down"}, {"error", "no answer"}}}}}});
  EXPECT_TRUE(godwit({"host", "ls"}).out.contains("b1@beta"));
  EXPECT_EQ(json::parse(godwit({"host", "ls", "--json"}).out)[1]["fleet"], "beta");
  EXPECT_TRUE(godwit({"host", "show", "b1@beta"}).out.contains("down"));
  EXPECT_TRUE(godwit({"host", "trust", "ls"}).out.contains("beta   p      b1@beta"));
  const std::string shown = godwit({"host", "trust", "show", "beta"}).out;
  EXPECT_TRUE(shown.contains("no answer") && shown.contains("red")) << shown;
  EXPECT_EQ(godwit({"host", "trust", "show", "gamma"}).status, 1);
}

TEST_F(CliTest, EveryReadPrintsTheAgentsJson) {
  const json list = json::array({{{"id", "m1"}, {"name", "web"}, {"state", "up"}}});
  const json object = {{"id", "m1"}, {"name", "web"}, {"state", "done"}};
  for (const char* path : {"hosts", "ports", "wires", "vms", "images", "migrations"}) {
    agent.answer(fmt::format("GET /v1/{}", path), list);
  }
  for (const char* path : {"host", "vms/web", "images/web", "migrations/m1"}) {
    agent.answer(fmt::format("GET /v1/{}", path), object);
  }
  for (const char* noun : {"host", "port", "wire", "vm", "image", "migration"}) {
    const auto ran = godwit({noun, "ls", "--json"});
    EXPECT_EQ(ran.status, 0) << noun << ": " << ran.err;
    EXPECT_EQ(json::parse(ran.out), list) << noun;
    EXPECT_EQ(godwit({noun, "ls"}).status, 0) << noun;
  }
  const std::vector<std::vector<std::string>> shows = {{"host", "show"},
                                                       {"vm", "show", "web"},
                                                       {"image", "show", "web"},
                                                       {"migration", "show", "m1"},
                                                       {"migration", "wait", "m1"},
                                                       {"migration", "watch", "m1"}};
  for (auto arguments : shows) {
    EXPECT_EQ(godwit(arguments).status, 0);
    arguments.emplace_back("--json");
    EXPECT_EQ(json::parse(godwit(arguments).out), object);
  }
}

TEST_F(CliTest, RefusalsKeepTheirTextAndTheirExitStatus) {
  agent.answer("POST /v1/migrations",
               {{"error", "preflight refuses to move web"},
                {"exit", 3},
                {"checks",
                 {{{"name", "memory"}, {"ok", false}, {"detail", "west has 100 MiB free"}},
                  {{"name", "cpu"}, {"ok", true}, {"detail", "fine"}}}}},
               409);
  agent.answer("GET /v1/vms", {{"error", "broken"}, {"exit", 77}}, 500);
  agent.answer("GET /v1/ports", "not an object", 500);
  agent.answer("GET /v1/wires", {{"not", "a list"}});
  const auto ran = godwit({"migrate", "web", "--to", "west"});
  EXPECT_EQ(ran.status, 3);
  EXPECT_EQ(ran.err, "godwit: preflight refuses to move web\n  memory: west has 100 MiB free\n");
  EXPECT_EQ(godwit({"vm", "ls"}).status, 1);
  EXPECT_EQ(godwit({"port", "ls"}).status, 1);
  EXPECT_EQ(godwit({"wire", "ls"}).status, 1) << "an answer of the wrong shape";
  EXPECT_EQ(godwit({"vm", "show", "none"}).status, 1);
}

TEST_F(CliTest, VmRunTakesDisksApart) {
  agent.answer("POST /v1/vms", {{"name", "db"}, {"state", "running"}}, 201);
  const auto ran = godwit({"vm", "run", "db", "--disk", "root,image=debian", "--disk",
                           "data,size=8GiB,format=raw,bus=scsi"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(
      agent.body_of("POST /v1/vms")["disks"],
      json::array({{{"name", "root"}, {"image", "debian"}},
                   {{"name", "data"}, {"size", "8GiB"}, {"format", "raw"}, {"bus", "scsi"}}}));
  const auto refused = godwit({"vm", "run", "db", "--disk", "root,siz=8GiB"});
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.err.find("'siz=8GiB'"), std::string::npos) << refused.err;
}

TEST_F(CliTest, AVmWithDisksIsRemovedWithAWordOnThem) {
  agent.answer("DELETE /v1/vms/db", json::object());
  agent.answer("POST /v1/vms/db/purge", json::object());
  EXPECT_EQ(godwit({"vm", "rm", "db", "--keep-disks"}).status, 0);
  EXPECT_EQ(godwit({"vm", "purge", "db"}).out, "disks of vm db removed\n");
}

TEST_F(CliTest, VmRunSendsWhatWasMeant) {
  agent.answer("POST /v1/vms",
               {{"name", "web"},
                {"state", "running"},
                {"accelerator", "tcg"},
                {"notice", "KVM cannot run a kernel here: using TCG"}},
               201);
  const auto ran = godwit({"vm", "run", "web", "--memory", "1GiB", "--cpus", "2", "--kernel",
                           "/bin/../bin/sh", "--append", "console=ttyS0 quiet", "--nic", "web0",
                           "--nic", "web1,mac=52:54:00:00:00:01"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, "vm web is running (tcg)\n");
  EXPECT_EQ(ran.err, "KVM cannot run a kernel here: using TCG\n");
  EXPECT_EQ(
      agent.body_of("POST /v1/vms"),
      json({{"name", "web"},
            {"memory", "1GiB"},
            {"cpus", 2},
            {"kernel", "/bin/sh"},
            {"append", "console=ttyS0 quiet"},
            {"nics", {{{"port", "web0"}}, {{"port", "web1"}, {"mac", "52:54:00:00:00:01"}}}}}));
}

json image(const char* state, std::uint64_t done = 0) {
  return {{"name", "base"},          {"tenant", "default"},   {"public", true},
          {"format", "qcow2"},       {"size_bytes", 4 << 20}, {"virtual_size_bytes", 8 << 20},
          {"sha256", "5ca1ab1e"},    {"state", state},        {"done_bytes", done},
          {"used_by", {"web", "db"}}};
}

TEST_F(CliTest, AnImageIsWaitedForUntilItIsReady) {
  agent.answer("POST /v1/images", image("copying"), 202);
  agent.answer("GET /v1/images/base", image("copying", 1 << 20));
  agent.answer("GET /v1/images/base", image("ready"));
  agent.answer("GET /v1/images", json::array({image("ready")}));
  const std::string sum(64, 'a');
  const auto ran = godwit({"image", "add", "base", "/bin/../bin/sh", "--format", "qcow2",
                           "--sha256", sum, "--public", "--tenant", "red"});
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_EQ(ran.out, "image base is ready: qcow2, a disk of 8 MiB, SHA-256 5ca1ab1e\n");
  EXPECT_TRUE(ran.err.starts_with("copying    0 B of 4 MiB\n")) << ran.err;
  EXPECT_EQ(agent.body_of("POST /v1/images"), json({{"name", "base"},
                                                    {"file", "/bin/sh"},
                                                    {"format", "qcow2"},
                                                    {"sha256", sum},
                                                    {"tenant", "red"},
                                                    {"public", true}}));
  EXPECT_EQ(godwit({"image", "ls"}).out,
            "IMAGE  FORMAT   SIZE   FILE  STATE  USED BY  TENANT\n"
            "base   qcow2   8 MiB  4 MiB  ready  web,db   default (public)\n");
}

TEST_F(CliTest, OnATerminalTheCopyOfAnImageIsALineWithItsRate) {
  agent.answer("POST /v1/images", image("copying"), 202);
  agent.answer("GET /v1/images/base", image("copying", 1 << 20));
  agent.answer("GET /v1/images/base", image("ready"));
  agent.start();
  started = true;
  const auto ran = run_cli(agent.socket(), {"image", "add", "base", "/bin/sh"}, true);
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_TRUE(ran.err.contains("copying    1 MiB of 4 MiB  ")) << ran.err;
  EXPECT_TRUE(ran.err.contains("bit/s  ETA ")) << ran.err;
}

TEST_F(CliTest, AnImageThatFailsIsToldAndLeftNowhere) {
  json failed = image("failed");
  failed["error"] = "/bin/sh has the SHA-256 5ca1ab1e";
  agent.answer("POST /v1/images", image("copying"), 202);
  agent.answer("GET /v1/images/base", failed);
  agent.answer("DELETE /v1/images/base", json::object());
  const auto ran = godwit({"image", "add", "base", "/bin/sh"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_TRUE(ran.err.ends_with("godwit: image base: /bin/sh has the SHA-256 5ca1ab1e\n"))
      << ran.err;
  EXPECT_EQ(agent.asked().back().what, "DELETE /v1/images/base");
}

TEST_F(CliTest, CtrlCRemovesTheImageThatWasBegun) {
  agent.answer("POST /v1/images", image("copying"), 202);
  agent.answer("GET /v1/images/base", image("copying"));
  agent.answer("DELETE /v1/images/base", json::object());
  agent.when("GET /v1/images/base", [] { ::kill(::getpid(), SIGINT); });
  const auto ran = godwit({"image", "add", "base", "/bin/sh"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_TRUE(ran.err.contains("interrupted: image base is removed")) << ran.err;
  EXPECT_EQ(agent.asked().back().what, "DELETE /v1/images/base");
}

TEST_F(CliTest, ADamagedImageIsAFailure) {
  json damaged = image("damaged");
  damaged["error"] = "another sum";
  agent.answer("POST /v1/images/base/verify", image("verifying"), 202);
  agent.answer("GET /v1/images/base", damaged);
  agent.answer("GET /v1/images/base", image("ready"));
  const auto ran = godwit({"image", "verify", "base"});
  EXPECT_EQ(ran.status, 1);
  EXPECT_TRUE(ran.err.contains("image base is damaged: another sum")) << ran.err;
  EXPECT_EQ(godwit({"image", "verify", "base"}).out, "image base is as it was added\n");
}

TEST_F(CliTest, ARefusedRecordingLeavesNoFileAndNoFileIsWrittenOver) {
  agent.answer("GET /v1/vms/web/recording", {{"error", "vm web is migrating"}}, 409);
  const TestDirectory directory;
  const std::string fresh = directory / "fresh", old = directory / "old";
  std::ofstream(old) << "kept";
  const auto refused = godwit({"debug", "stream", "record", "web", fresh});
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("secrets"), std::string::npos);
  EXPECT_NE(refused.err.find("vm web is migrating"), std::string::npos) << refused.err;
  EXPECT_FALSE(std::filesystem::exists(fresh));
  const auto exists = godwit({"debug", "stream", "record", "web", old});
  EXPECT_EQ(exists.status, 1);
  EXPECT_NE(exists.err.find("exists already"), std::string::npos) << exists.err;
  EXPECT_EQ(std::filesystem::file_size(old), 4U);
  EXPECT_EQ(agent.asked().size(), 1U);
}

TEST_F(CliTest, PortsAndWires) {
  agent.answer("POST /v1/ports", {{"name", "up0"}}, 201);
  agent.answer("POST /v1/wires", {{"id", "w1"}}, 201);
  agent.answer("DELETE /v1/wires", json::object());
  EXPECT_EQ(godwit({"port", "add", "up0", "--uplink", "--address", "10.9.0.1/24"}).status, 0);
  EXPECT_EQ(agent.body_of("POST /v1/ports"),
            json({{"name", "up0"}, {"kind", "uplink"}, {"address", "10.9.0.1/24"}}));
  EXPECT_EQ(godwit({"connect", "up0", "west/web0"}).status, 0);
  EXPECT_EQ(agent.body_of("POST /v1/wires"), json({{"a", "up0"}, {"b", "west/web0"}}));
  EXPECT_EQ(godwit({"disconnect", "up0", "west/web0"}).status, 0);
  EXPECT_EQ(agent.body_of("DELETE /v1/wires"), json({{"a", "up0"}, {"b", "west/web0"}}));
}

TEST_F(CliTest, WireShowFindsByIdOrPort) {
  const auto wire = [](const char* id, const char* a, const char* b) {
    return json{{"id", id},
                {"a", {{"port", a}, {"host", "east"}}},
                {"b", {{"port", b}, {"host", "west"}}},
                {"state", "up"},
                {"tx", {{"frames", 7}, {"bytes", 2048}}},
                {"drops", {{"replayed", 2}}}};
  };
  agent.answer("GET /v1/wires", {wire("aa11", "web0", "lan0"), wire("aa22", "db0", "lan1")});
  EXPECT_NE(godwit({"wire", "show", "db0"}).out.find("aa22"), std::string::npos);
  EXPECT_NE(godwit({"wire", "show", "aa1"}).out.find("7 frames, 2 KiB"), std::string::npos);
  EXPECT_NE(godwit({"wire", "show", "aa1"}).out.find("replayed"), std::string::npos);
  EXPECT_EQ(godwit({"wire", "show", "aa"}).status, 1);
  EXPECT_EQ(godwit({"wire", "show", "zz"}).status, 1);
}

TEST_F(CliTest, InvitePrintsOnlyTheLine) {
  agent.answer("POST /v1/invites",
               {{"command", "godwit join abc@10.0.0.1:4747"}, {"expires", "2026-11-21T23:00:00Z"}});
  const auto ran = godwit({"host", "invite", "--ttl", "10min"});
  EXPECT_EQ(ran.out, "godwit join abc@10.0.0.1:4747\n");
  EXPECT_EQ(agent.body_of("POST /v1/invites"), json({{"ttl", "10min"}}));
}

TEST_F(CliTest, OptionsMayStandAnywhereAndTheEnvironmentCounts) {
  agent.answer("GET /v1/vms", json::array());
  agent.start();
  started = true;
  EXPECT_EQ(run_cli("", {"vm", "ls", "--socket", agent.socket()}).out, "no vms\n");
  EXPECT_EQ(run_cli("", {"vm", "ls", "-H", "unix:" + agent.socket()}).out, "no vms\n");
  ::setenv("GODWIT_HOST", agent.socket().c_str(), 1);
  EXPECT_EQ(run_cli("", {"vm", "ls"}).out, "no vms\n");
  ::unsetenv("GODWIT_HOST");
}

}  // namespace
}  // namespace godwit::cli

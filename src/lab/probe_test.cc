// The probe's figures from made-up events, and the probe against the guest program run natively, in
// a network namespace of its own.
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>

#include <array>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "lab/probe_figures.hh"
#include "os/child.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"

namespace godwit::lab {
namespace {

using nlohmann::json;

UnixTime at_ms(int ms) { return seconds(1'000) + milliseconds(ms); }
Window window_of(int from_ms, int to_ms) {
  return {.name = "w", .start = at_ms(from_ms), .end = at_ms(to_ms)};
}

TEST(Arrivals, AGapCountsInEachWindowItTouches) {
  Arrivals arrivals;
  // The vm was paused for 270 ms of the 300 between the third and the fourth. Each packet tells
  // when the one before had left it.
  auto left = milliseconds(-10);
  for (const int ms : {0, 10, 20, 320, 330}) {
    arrivals.add(at_ms(ms), static_cast<std::uint64_t>(ms / 10), left);
    left = milliseconds(ms < 320 ? ms : ms - 270);
  }
  EXPECT_EQ(arrivals.longest_gap(window_of(0, 100)).length, milliseconds(300));
  EXPECT_EQ(arrivals.longest_gap(window_of(300, 340)).length, milliseconds(300));
  EXPECT_EQ(arrivals.longest_gap(window_of(300, 340)).start, at_ms(20));
  EXPECT_EQ(arrivals.longest_gap(window_of(300, 340)).in_vm, milliseconds(40));
  EXPECT_EQ(arrivals.longest_gap(window_of(0, 15)).length, milliseconds(10));
  // Nothing came after 330: the silence up to the window's end counts.
  EXPECT_EQ(arrivals.longest_gap(window_of(330, 1330)).length, milliseconds(1000));
  EXPECT_EQ(arrivals.longest_gap(window_of(330, 1330)).in_vm, Nanoseconds{});
}

TEST(Arrivals, LossIsDatedByTheLastPacketBeforeIt) {
  Arrivals arrivals;
  arrivals.add(at_ms(0), 0, {});
  arrivals.add(at_ms(1), 1, {});
  arrivals.add(at_ms(50), 4, {});
  arrivals.add(at_ms(51), 4, {});
  arrivals.add(at_ms(52), 2, {});
  EXPECT_EQ(arrivals.lost(window_of(0, 40)), 0U);
  EXPECT_EQ(arrivals.lost(window_of(40, 100)), 1U);  // 3, after 2 that came at 52
  arrivals.add(at_ms(53), 7, {});
  const auto losses = arrivals.losses(window_of(0, 100));
  ASSERT_EQ(losses.size(), 2U);
  EXPECT_EQ(losses[1].at, at_ms(50));
  EXPECT_EQ(losses[1].first, 5U);
  EXPECT_EQ(losses[1].count, 2U);
  EXPECT_EQ(arrivals.duplicated(window_of(40, 100)), 1U);
  EXPECT_EQ(arrivals.reordered(window_of(40, 100)), 1U);
  EXPECT_EQ(arrivals.reordered(window_of(0, 40)), 0U);
}

Packet stream_packet(std::uint64_t sequence, std::uint64_t counter) {
  return {.kind = PacketKind::stream,
          .wanted_per_second = 1000,
          .client = 1,
          .sequence = sequence,
          .counter = counter,
          .left_ns = 0,
          .index = 0};
}

TEST(ProbeRecord, ACounterThatJumpsIsSeen) {
  ProbeRecord record(1000);
  record.received(at_ms(1), stream_packet(0, 500));
  record.received(at_ms(2), stream_packet(3, 503));  // lost ones do not matter
  record.received(at_ms(3), stream_packet(2, 502));  // nor does order
  EXPECT_EQ(record.figures(window_of(0, 10), {}, {})["counter_jumps"], 0);
  record.received(at_ms(4), stream_packet(4, 490));
  EXPECT_EQ(record.figures(window_of(0, 10), {}, {})["counter_jumps"], 1);
}

TEST(ProbeRecord, TheGuestsListCountsByTheTimeOfSending) {
  ProbeRecord record(1000);
  for (int i = 0; i < 100; ++i) record.sent(at_ms(i));
  GuestReport guest;
  guest.missing = {10, 60, 61};
  guest.duplicated = {70};
  const json figures = record.figures(window_of(50, 100), window_of(0, 50), guest);
  EXPECT_EQ(figures["to_vm"]["sent"], 50);
  EXPECT_EQ(figures["to_vm"]["lost"], 2);
  EXPECT_EQ(figures["to_vm"]["losses"],
            json::parse(R"([{"at_unix_ns":)" + std::to_string(at_ms(60).count()) +
                        R"(,"first":60,"count":2}])"));
  EXPECT_EQ(figures["to_vm"]["duplicated"], 1);
  EXPECT_EQ(figures["to_vm"]["send_gap_ms"], 1.0);
}

TEST(GuestReport, HostileLinesAreRefused) {
  for (const char* line : {"", "{", "[]", "{}", R"({"counter":1})"}) {
    EXPECT_FALSE(parse_guest_report(line)) << line;
  }
  EXPECT_TRUE(parse_guest_report(R"({"counter":1,"tcp":3,"dirty":[],"client":{"missing":7}})"));
}

struct NativeRun : ::testing::Test {
  static void SetUpTestSuite() {
    // The ports are ours alone and nothing else is on this loopback.
    if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "needs network namespaces";
    ASSERT_TRUE(os::run({.argv = {"ip", "link", "set", "lo", "up"}}));
  }
  void SetUp() override {
    guest = os::Child::spawn({.argv = {GODWIT_GUEST, "--dirty", "20mbit"}, .dies_with_us = true});
  }
  // The lines that the probe printed, by "event" of the last of each kind.
  std::map<std::string, json> probe(std::vector<std::string> arguments, std::string_view input) {
    std::vector<std::string> argv{GODWIT_PROBE, "127.0.0.1", "--settle", "100ms"};
    argv.insert(argv.end(), arguments.begin(), arguments.end());
    const auto output = os::run({.argv = argv}, input, seconds(60));
    EXPECT_TRUE(output) << output.error().text;
    std::map<std::string, json> events;
    std::istringstream lines(output ? output->out : "");
    for (std::string line; std::getline(lines, line);) {
      const json object = json::parse(line, nullptr, false);
      if (object.is_object()) events[object.value("event", "none")] = object;
    }
    return events;
  }
  os::Child guest;
};

TEST_F(NativeRun, CountsNothingWrongOnLoopback) {
  auto events = probe({"--for", "1500ms"}, "");
  ASSERT_TRUE(events.contains("ready")) << json(events).dump(1);
  ASSERT_TRUE(events.contains("summary")) << json(events).dump(1);
  const json& total = events["summary"]["total"];
  EXPECT_GT(total["to_vm"]["sent"], 500);
  for (const char* direction : {"to_vm", "from_vm"}) {
    EXPECT_EQ(total[direction]["lost"], 0) << total.dump(1);
    EXPECT_EQ(total[direction]["duplicated"], 0) << total.dump(1);
    EXPECT_EQ(total[direction]["reordered"], 0) << total.dump(1);
  }
  EXPECT_EQ(total["tcp"]["resets"], 0);
  EXPECT_EQ(total["tcp"]["mismatches"], 0);
  EXPECT_EQ(total["tcp"]["rto_vm"], 0);
  EXPECT_EQ(total["counter_jumps"], 0);
  EXPECT_EQ(total["guest"]["pages_damaged"], 0);
  EXPECT_GT(total["guest"]["counter"], 500);
}

TEST_F(NativeRun, AKilledGuestShowsAsResetsAndAGap) {
  os::Loop loop;
  const auto kill = loop.after(milliseconds(1500), [&] {
    EXPECT_TRUE(guest.kill(SIGKILL));
    loop.stop();
  });
  std::thread killer([&] { loop.run(); });
  auto events = probe({"--for", "3s"}, "");
  killer.join();
  ASSERT_TRUE(events.contains("summary")) << json(events).dump(1);
  const json& total = events["summary"]["total"];
  EXPECT_GE(total["tcp"]["resets"], 4) << total.dump(1);
  EXPECT_GT(total["from_vm"]["gap"]["ms"], 500.0);
  EXPECT_TRUE(total["to_vm"]["lost"].is_null());  // only the guest knew
}

// Stopped, it lags as a vm on a busy host does: it is asked before it has read what it was sent.
TEST_F(NativeRun, WhatTheGuestIsYetToReadIsNotLost) {
  os::Loop loop;
  const auto stop = loop.after(milliseconds(700), [&] { EXPECT_TRUE(guest.kill(SIGSTOP)); });
  const auto go_on = loop.after(milliseconds(2000), [&] {
    EXPECT_TRUE(guest.kill(SIGCONT));
    loop.stop();
  });
  std::thread timer([&] { loop.run(); });
  auto events = probe({"--for", "1500ms"}, "");
  timer.join();
  ASSERT_TRUE(events.contains("summary")) << json(events).dump(1);
  const json& total = events["summary"]["total"];
  EXPECT_EQ(total["to_vm"]["lost"], 0) << total.dump(1);
  EXPECT_GT(total["to_vm"]["sent"], 500) << total.dump(1);
}

TEST_F(NativeRun, MarkedWindowsGetTheirOwnFigures) {
  os::Loop loop;
  auto pair = os::make_socket_pair();
  const auto probe = os::Child::spawn({.argv = {GODWIT_PROBE, "127.0.0.1", "--settle", "100ms"},
                                       .stdin_fd = pair.theirs.number(),
                                       .stdout_fd = pair.theirs.number(),
                                       .dies_with_us = true});
  pair.theirs.reset();
  const auto stream = os::adopt_stream(loop, std::move(pair.ours), "probe");
  std::string output;
  bool closed = false;
  stream->start({.readable =
                     [&] {
                       std::array<std::byte, 4096> chunk;
                       while (const auto count = stream->read(chunk)) {
                         output += as_text(BytesView(chunk).first(count));
                       }
                     },
                 .writable = {},
                 .closed = [&](std::string) { closed = true; }});
  const auto say = [&](std::string_view line) { stream->write(as_bytes(line)); };
  const auto said = [&](std::string_view word) { return output.find(word) != std::string::npos; };
  ASSERT_TRUE(os::run_until(loop, [&] { return said("ready"); }));
  say("mark a start\n");
  bool later = false;
  const auto timer = loop.after(milliseconds(300), [&] { later = true; });
  ASSERT_TRUE(os::run_until(loop, [&] { return later; }));
  say("mark a end\nmark b start\nmark nonsense\n");
  ASSERT_TRUE(os::run_until(loop, [&] { return said("\"window\"") && said("not understood"); }));
  say("stop\n");
  ASSERT_TRUE(os::run_until(loop, [&] { return closed; }));
  const std::size_t at = output.rfind("{\"event\":\"summary\"");
  ASSERT_NE(at, std::string::npos) << output;
  const json summary = json::parse(output.substr(at), nullptr, false);
  ASSERT_EQ(summary["windows"].size(), 2U) << output;  // b was ended by the stop
  const json& a = summary["windows"][0];
  EXPECT_EQ(a["name"], "a");
  EXPECT_GT(a["to_vm"]["sent"], 100);
  EXPECT_LT(a["to_vm"]["sent"], summary["total"]["to_vm"]["sent"]);
  EXPECT_EQ(a["to_vm"]["lost"], 0);
  EXPECT_EQ(a["from_vm"]["lost"], 0);
  EXPECT_EQ(a["tcp"]["rto_client"], 0);
  EXPECT_EQ(a["tcp"]["connections"], 4);
  EXPECT_EQ(a["tcp"]["silent"], 0);
}

TEST_F(NativeRun, ConnectionsOfAGuestThatIsGoneAreSilent) {
  std::thread timer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    guest.kill(SIGSTOP);
  });
  auto events = probe(
      {"--for", "1500ms", "--connections", "2", "--tcp-every", "20ms", "--tcp-bytes", "80"}, "");
  timer.join();
  guest.kill(SIGCONT);
  ASSERT_TRUE(events.contains("summary")) << json(events).dump(1);
  const json& tcp = events["summary"]["total"]["tcp"];
  EXPECT_EQ(tcp["connections"], 2);
  EXPECT_EQ(tcp["silent"], 2);
  EXPECT_EQ(tcp["resets"], 0);
  EXPECT_GT(tcp["stall_ms"], 500) << tcp.dump(1);
  EXPECT_TRUE(events["summary"]["total"]["to_vm"]["lost"].is_null());
}

TEST_F(NativeRun, WithoutAGuestItSaysSo) {
  ASSERT_TRUE(guest.kill(SIGKILL));
  guest.wait();
  auto events = probe({"--for", "1s", "--wait", "300ms"}, "");
  ASSERT_TRUE(events.contains("error"));
  EXPECT_FALSE(events.contains("summary"));
}

}  // namespace
}  // namespace godwit::lab

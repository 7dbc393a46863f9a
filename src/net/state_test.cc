// Messages of what components have learned; and those of switches, told to another instance while
// they go on: it knows the same in the end, and does the same.
#include "net/state.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/state_testing.hh"
#include "net/switch.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;

constexpr Mac kAll = 0xffffffffffff;

// ---- messages ----

TEST(StateMessage, HasSectionsOfRows) {
  StateWriter writer(20);
  EXPECT_THAT(writer.take(), IsEmpty());
  writer.row(StateKind::gone_macs).u16(1);
  writer.row(StateKind::gone_macs).u16(2);
  EXPECT_FALSE(writer.is_full());
  writer.row(StateKind::flows).u8(3);
  EXPECT_TRUE(writer.is_full());
  const Bytes message = writer.take();
  EXPECT_EQ(to_hex(message), hex("01 0001 0100 00000004 00010002 0007 0100 00000001 03"));
  const auto sections = read_state(message).value();
  ASSERT_EQ(sections.size(), 2u);
  EXPECT_EQ(sections[1].kind, StateKind::flows);
  EXPECT_EQ(to_hex(sections[0].payload), "00010002");
  EXPECT_THAT(writer.take(), IsEmpty());
}

TEST(StateMessage, IsRefusedWhereItIsNotKnownOrCutOff) {
  const auto text_of = [](std::string_view text) {
    const auto sections = read_state(from_hex(hex(text)));
    return sections ? "" : sections.error().text;
  };
  EXPECT_EQ(text_of("01"), "") << "no sections";
  EXPECT_THAT(text_of(""), HasSubstr("cut off"));
  EXPECT_THAT(text_of("02"), HasSubstr("version 2 is not known"));
  EXPECT_EQ(text_of("01 0001 0100 00000000"), "");
  EXPECT_THAT(text_of("01 0001 0100 00000001"), HasSubstr("cut off"));
  EXPECT_THAT(text_of("01 00010100000000"), HasSubstr("cut off"));
  EXPECT_THAT(text_of("01 0001 0200 00000000"), HasSubstr("section 1 is not known"));
  EXPECT_THAT(text_of("01 0001 0101 00000000"), HasSubstr("section 1 is not known"));
}

TEST(StateMessage, TimesAreBounded) {
  Bytes bytes;
  Writer writer(bytes);
  write_ms(writer, Nanoseconds(-1)), write_ms(writer, seconds(1)),
      write_ms(writer, Nanoseconds::max());
  write_ns(writer, Nanoseconds(-1)), write_ns(writer, seconds(1)),
      write_ns(writer, Nanoseconds::max());
  EXPECT_EQ(to_hex(bytes), hex("00000000 000003e8 ffffffff"
                               "0000000000000000 000000003b9aca00 4000000000000000"));
  const auto ns_of = [](std::string_view text) -> std::optional<Nanoseconds> {
    const Bytes ns = from_hex(text);
    Reader reader(ns);
    const Nanoseconds read = read_ns(reader);
    return reader.finished() ? std::optional(read) : std::nullopt;
  };
  EXPECT_EQ(ns_of("000000003b9aca00"), seconds(1));
  EXPECT_TRUE(ns_of("4000000000000000"));
  EXPECT_FALSE(ns_of("4000000000000001"));
  EXPECT_FALSE(ns_of("ffffffffffffffff"));
}

// ---- switches ----

constexpr PortIndex kPorts = 6;
const Nanoseconds kAgeing = seconds(32);

SwitchConfig switch_config() {
  SwitchConfig config{.ageing = kAgeing, .most_macs = 48};
  for (PortIndex i = 0; i < kPorts; ++i) config.ports[i] = {};
  config.ports[1].access = 10;
  config.ports[2].trunk = {10, 20};
  config.macs = {{.vlan = 10, .mac = 0x020000000001, .port = 1}};
  return config;
}

struct SwitchTraffic {
  wire::testing::Random random;
  std::size_t upto(std::size_t most) { return random() % most; }

  Bytes some_frame() {
    const Mac source = 0x020000000000 + upto(40), destination = 0x020000000000 + upto(40);
    if (upto(12) == 0) return igmp(source, 0x01005e000001, "1164ee9b00000000");
    if (upto(6) == 0) {
      const bool joins = upto(3) != 0;
      Bytes group;
      Writer(group).u8(static_cast<std::uint8_t>(1 + upto(9)));
      return igmp(
          source, 0x01005e000016,
          "2200ea0300000001" + std::string(joins ? "04" : "03") + "000000ef0102" + to_hex(group));
    }
    const Vlan vlan = static_cast<Vlan>(10 * upto(3));
    return frame(source, destination, vlan == 0 ? std::optional<Vlan>() : vlan);
  }
  // For up to half a minute; times are whole milliseconds.
  void run(Switch& sw, Instant& now, std::size_t frames) {
    Received out;
    for (std::size_t i = 0; i < frames; ++i) {
      now += milliseconds(upto(2) == 0 ? 0 : upto(200));
      if (upto(30) == 0) sw.tick(now, out);
      give(sw, static_cast<PortIndex>(upto(kPorts)), some_frame(), now, out);
    }
  }
};

std::vector<std::string> macs_of(const Switch& sw, Instant now, bool has_age) {
  std::vector<std::string> all;
  for (const auto& each : sw.macs().entries()) {
    const auto age = has_age && !each.is_static ? fmt::to_string((now - each.seen).count()) : "";
    all.push_back(fmt::format("{} {} at {}{} {}", each.vlan, to_text(each.mac), each.port,
                              each.is_static ? ", pinned" : "", age));
  }
  return all;
}
std::vector<std::string> groups_of(const Switch& sw, Instant now) {
  std::vector<std::string> all;
  for (const auto& [key, until] : sw.groups().entries()) {
    all.push_back(fmt::format("{} {} at {} {}", key.vlan, to_text(key.group), key.port,
                              std::max(until - now, Nanoseconds(0)).count()));
  }
  return all;
}

struct SwitchState : testing::TestWithParam<unsigned> {
  Instant now = Instant{} + seconds(1000);
  SwitchTraffic traffic{.random = wire::testing::Random(GetParam())};
};

TEST_P(SwitchState, IsTheSameThereWithAnotherClock) {
  Switch from(switch_config(), 1), to(switch_config(), 2);
  traffic.run(from, now, 2000);
  const Instant there = Instant{} + seconds(5);
  load(to, all_of(from, now, 100), there);
  EXPECT_EQ(macs_of(to, there, true), macs_of(from, now, true));
  EXPECT_EQ(groups_of(to, there), groups_of(from, now));
  Switch third(switch_config(), 3);
  load(third, all_of(to, there), now);
  EXPECT_EQ(macs_of(third, now, true), macs_of(from, now, true));
  EXPECT_EQ(groups_of(third, now), groups_of(from, now));
}

TEST_P(SwitchState, IsFollowedWhileItGoesOn) {
  Switch from(switch_config(), 1), to(switch_config(), 2);
  traffic.run(from, now, 500);
  from.begin_state();
  for (int round = 0; round < 40; ++round) {
    const Bytes some = from.take_state(traffic.upto(3) * 150, now);
    if (!some.empty()) load(to, {some}, now);
    traffic.run(from, now, traffic.upto(60));
  }
  load(to, rest_of(from, now), now);
  EXPECT_EQ(macs_of(to, now, false), macs_of(from, now, false));
  EXPECT_EQ(groups_of(to, now), groups_of(from, now));
  const auto theirs = to.macs().entries(), ours = from.macs().entries();
  for (std::size_t i = 0; i < theirs.size() && i < ours.size(); ++i) {
    EXPECT_LE(theirs[i].seen, ours[i].seen);
    EXPECT_GE(theirs[i].seen, ours[i].seen - kAgeing / 16);
  }
  // What both do with the same frames is the same from now on.
  for (int i = 0; i < 200; ++i) {
    Received here, there;
    const auto port = static_cast<PortIndex>(traffic.upto(kPorts));
    const Bytes frame = traffic.some_frame();
    give(from, port, frame, now, here);
    give(to, port, frame, now, there);
    ASSERT_EQ(here.frames, there.frames);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, SwitchState, testing::Range(0u, 20u));

struct SwitchStateOf : testing::Test {
  static constexpr Mac kA = 0x02000000000a, kB = 0x02000000000b;
  static Mac group() { return 0x01005e010203; }
  void hear(Switch& at, PortIndex port, Mac mac) {
    Received out;
    give(at, port, frame(mac, kAll), now, out);
  }
  std::map<PortIndex, std::vector<Bytes>> send(Switch& at, PortIndex port, Mac whom) {
    Received out;
    give(at, port, frame(kB, whom), now, out);
    return out.frames;
  }
  Instant now = Instant{} + seconds(1000);
  Switch from{switch_config(), 1}, to{switch_config(), 2};
};

TEST_F(SwitchStateOf, AKnownAddressIsNotFloodedThere) {
  hear(from, 3, kA);
  load(to, all_of(from, now), now);
  EXPECT_THAT(send(to, 0, kA), ElementsAre(Key(3)));
}

TEST_F(SwitchStateOf, OneMessageToTheByte) {
  hear(from, 3, kA);
  now += milliseconds(1500);
  const auto messages = all_of(from, now);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_EQ(to_hex(messages[0]), hex("01 0002 0100 0000000e 0000 0003 02000000000a 000005dc"));
}

TEST_F(SwitchStateOf, WhatIsToldIsWhatChanged) {
  for (Mac mac = 0; mac < 30; ++mac) hear(from, 3, kA + mac);
  from.begin_state();
  EXPECT_EQ(from.untold(), 30u);
  (void)from.take_state(100, now);
  EXPECT_EQ(from.untold(), 23u) << "seven rows of 14 bytes in each";
  EXPECT_EQ(rest_of(from, now, 100).size(), 4u);
  EXPECT_THAT(rest_of(from, now), IsEmpty());
  hear(from, 3, kA);
  EXPECT_THAT(rest_of(from, now), IsEmpty()) << "as it was";
  hear(from, 4, kA);
  EXPECT_EQ(from.take_state(kMost, now).size(), 1u + 8 + 14);
  now += kAgeing / 16;
  hear(from, 4, kA);
  EXPECT_EQ(from.take_state(kMost, now).size(), 1u + 8 + 14) << "seen since";
  hear(from, 5, kA);
  from.end_state();
  EXPECT_THAT(rest_of(from, now), IsEmpty());
}

TEST_F(SwitchStateOf, WhatIsForgottenAndLearnedAnewIsThere) {
  Received out;
  hear(from, 3, kA), hear(from, 3, kB);
  from.begin_state();
  load(to, rest_of(from, now), now);
  now += kAgeing + seconds(1);
  from.tick(now, out);
  EXPECT_EQ(from.macs().size(), 1u) << "the pinned one";
  hear(from, 4, kA);
  load(to, rest_of(from, now, 1), now);
  EXPECT_EQ(macs_of(to, now, true), macs_of(from, now, true));
  EXPECT_EQ(to.macs().find(0, kA, now), 4);
}

TEST_F(SwitchStateOf, WhatHasNoPlaceThereIsPassedOver) {
  hear(from, 3, kA), hear(from, 4, kB);
  const auto all = all_of(from, now);
  SwitchConfig config = switch_config();
  config.ports.erase(4);
  config.macs = {{.mac = kA, .port = 5}};
  Switch other(config, 2);
  load(other, all, now);
  EXPECT_THAT(macs_of(other, now, false), ElementsAre("0 02:00:00:00:00:0a at 5, pinned "));
  config = switch_config();
  config.most_macs = 2;
  Switch small(config, 2);
  load(small, all, now);
  EXPECT_EQ(small.macs().size(), 2u) << "with the pinned one";
}

TEST_F(SwitchStateOf, WhatCannotBeIsRefused) {
  const auto text_of = [&](std::string_view text) {
    const auto done = to.load_state(from_hex(hex(text)), now);
    return done ? "" : done.error().text;
  };
  EXPECT_EQ(text_of("01 0002 0100 0000000e 0000 0003 02000000000a 00000000"), "");
  for (const char* text : {"01 0002 0100 0000000e 0fff 0003 02000000000a 00000000",
                           "01 0002 0100 0000000e 0000 0003 03000000000a 00000000",
                           "01 0002 0100 0000000e 0000 0003 000000000000 00000000",
                           "01 0002 0100 0000000d 0000 0003 02000000000a 000000",
                           "01 0004 0100 0000000e 0000 0003 02000000000a 00000000"}) {
    EXPECT_THAT(text_of(text), HasSubstr("is damaged")) << text;
  }
  EXPECT_THAT(text_of("01 0007 0100 00000000"), HasSubstr("section 7 is not known"));
  EXPECT_THAT(text_of("01 00ff 0100 00000000"), HasSubstr("section 255 is not known"));
}

}  // namespace
}  // namespace godwit::net

#include "net/patchbay.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "net/net_testing.hh"
#include "net/switch.hh"

namespace godwit::net {
namespace {

using testing::ElementsAre;

constexpr Mac kAll = 0xffffffffffff;
constexpr Mac kA = 0x02000000000a, kB = 0x02000000000b;

template <class AnId>
AnId id(int number) {
  AnId made;
  made.bytes.back() = static_cast<std::byte>(number);
  return made;
}

// Two switches with four ports each, 11 to 14 and 21 to 24; wires join what wires_ says.
struct PatchbayTest : testing::Test {
  PatchbayTest() {
    for (const int number : {1, 2}) {
      SwitchConfig config;
      std::map<PortIndex, PortId> ports;
      for (PortIndex i = 0; i < 4; ++i) {
        config.ports[i] = {};
        ports[i] = id<PortId>(number * 10 + 1 + i);
      }
      bay.place(id<ComponentId>(number), std::make_unique<Switch>(config, 1), ports, now);
    }
  }
  void deliver(const PortId& from, std::span<const BytesView> frames) {
    const auto wire = wires.find(from);
    if (wire == wires.end()) {
      for (const BytesView each : frames) left[from].push_back(to_bytes(each));
    } else {
      bay.take(wire->second, frames);
    }
  }
  void send(int port, const Bytes& bytes) {
    const BytesView view(bytes);
    EXPECT_TRUE(bay.take(id<PortId>(port), {&view, 1}));
    bay.run(now);
  }
  void join(int a, int b) {
    wires[id<PortId>(a)] = id<PortId>(b);
    wires[id<PortId>(b)] = id<PortId>(a);
  }
  std::vector<int> ports_left() {
    std::vector<int> ports;
    for (const auto& [port, frames] : std::exchange(left, {})) {
      ports.push_back(std::to_integer<int>(port.bytes.back()));
    }
    return ports;
  }

  Instant now = Instant{} + seconds(1);
  std::map<PortId, PortId> wires;
  std::map<PortId, std::vector<Bytes>> left;
  Patchbay bay{[this](const PortId& port, std::span<const BytesView> frames, Instant) {
    deliver(port, frames);
  }};
};

TEST_F(PatchbayTest, FramesGoThroughSeveralComponents) {
  join(12, 21);
  send(11, frame(kA, kAll));
  EXPECT_THAT(ports_left(), ElementsAre(13, 14, 22, 23, 24));
  send(22, frame(kB, kA));
  EXPECT_THAT(ports_left(), ElementsAre(11));
}

TEST_F(PatchbayTest, WhatIsNoComponentsIsNotTaken) {
  EXPECT_FALSE(bay.take(id<PortId>(99), {}));
  bay.remove(id<ComponentId>(1));
  EXPECT_FALSE(bay.take(id<PortId>(11), {}));
  EXPECT_EQ(bay.find(id<ComponentId>(1)), nullptr);
  EXPECT_NE(bay.find(id<ComponentId>(2)), nullptr);
}

TEST_F(PatchbayTest, ACircleOfWiresEnds) {
  join(12, 21);
  join(11, 22);
  const Bytes bytes = frame(kA, kAll);
  const BytesView view(bytes);
  bay.take(id<PortId>(13), {&view, 1});
  bay.run(now);
  EXPECT_GT(bay.looped(), 0u);
}

// Each frame that comes by one of them goes back by the others: 2^32 of them after 32 rounds.
TEST_F(PatchbayTest, SoDoManyWaysRound) {
  for (const int port : {1, 2, 3}) join(10 + port, 20 + port);
  send(14, frame(kA, kAll));
  EXPECT_GT(bay.looped(), 0u);
  EXPECT_LE(left[id<PortId>(24)].size(), 70'000u);
  const auto before = bay.looped();
  send(14, frame(kB, kA));
  EXPECT_LT(bay.looped() - before, 70'000u) << "each run has its own bounds";
}

TEST_F(PatchbayTest, PortsChangeAndTheComponentStays) {
  send(11, frame(kA, kAll));
  ports_left();
  bay.place(id<ComponentId>(1), nullptr, {{0, id<PortId>(11)}, {1, id<PortId>(15)}}, now);
  EXPECT_FALSE(bay.take(id<PortId>(12), {}));
  send(15, frame(kB, kA));
  EXPECT_THAT(ports_left(), ElementsAre(11)) << "A was learned before";
}

TEST_F(PatchbayTest, TellsWhenAComponentWantsToBeCalled) {
  EXPECT_LE(bay.next_tick(), now);
  bay.tick(now);
  EXPECT_EQ(bay.next_tick(), now + seconds(30));
}

}  // namespace
}  // namespace godwit::net

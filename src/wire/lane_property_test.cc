// Random frames over a random network: what arrives is exactly what must, bit by bit, once.
//
// A model says for each frame which datagrams carried which of its bytes. From the datagrams that
// got through it follows what must be delivered: a frame, if all of it arrived; of a super-frame
// with holes, each segment of which all bytes and all headers arrived. All are compared as the
// packets that segmentation offload makes of them, so it does not matter how they were grouped.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using testing::Collected;
using testing::Random;

constexpr int kSeeds = 15;
constexpr int kFramesPerSeed = 60;
// Within kReorderDatagrams stragglers are waited for; much further they come after salvage began.
constexpr std::size_t kFarDisplacement = 60;

struct Network {
  double loss = 0;
  double copies = 0;
  std::size_t displacement = 0;  // a datagram is overtaken by at most about so many
};

struct Sent {
  Bytes frame;
  bool is_super = false;
  std::size_t headers = 0;  // vnet header included
  std::uint64_t first = 0;  // counter of the first datagram
  std::size_t count = 1;    // datagrams; 1: in a bundle, or alone
};

Sent any_frame(Random& random) {
  Sent sent;
  switch (random() % 5) {
    case 0:
      sent.frame = testing::plain_frame(kMinFrameBytes + random() % 200, random);
      return sent;
    case 1:
      sent.frame = testing::plain_frame(1400 + random() % 200, random);
      return sent;
    case 2:
      sent.frame = testing::plain_frame(2000 + random() % 60'000, random);
      return sent;
    default:
      break;
  }
  testing::SuperFrameSpec spec{.is_ip6 = random() % 2 == 0,
                               .is_udp = random() % 4 == 0,
                               .has_vlan = random() % 8 == 0,
                               .payload = 1500 + random() % 62'000,
                               .gso_size = static_cast<std::uint16_t>(1100 + random() % 400),
                               .options = random() % 11 * 4,
                               .tcp_flags = static_cast<std::uint8_t>(0x10 | random()),
                               .sequence = static_cast<std::uint32_t>(random()),
                               .ecn = false};
  sent.is_super = true;
  sent.frame = testing::super_frame(spec, random);
  sent.headers = sent.frame.size() - spec.payload;
  return sent;
}

std::vector<Sent> send_all(Sealer& sealer, DatagramBatch& batch, Random& random) {
  std::vector<Sent> all;
  for (int i = 0; i < kFramesPerSeed; ++i) {
    Sent sent = any_frame(random);
    if (random() % 8 == 0) sealer.flush(batch);
    sealer.frame(sent.frame, batch);
    const bool in_bundle = sent.frame.size() + 2 <= payload_capacity(1500);
    if (!in_bundle) {
      sent.count = (sent.frame.size() + payload_capacity(1500)) / payload_capacity(1500);
    }
    sent.first = sealer.next_counter() - (in_bundle ? 0 : sent.count);
    all.push_back(std::move(sent));
  }
  sealer.flush(batch);
  return all;
}

// The order in which datagrams come out of the network, by number.
std::vector<std::size_t> transmit(std::size_t count, const Network& network, Random& random) {
  std::uniform_real_distribution<double> chance;
  std::vector<std::pair<double, std::size_t>> arrivals;
  for (std::size_t i = 0; i < count; ++i) {
    if (chance(random) < network.loss) continue;
    const int copies = chance(random) < network.copies ? 2 : 1;
    for (int copy = 0; copy < copies; ++copy) {
      arrivals.emplace_back(double(i) + chance(random) * double(network.displacement), i);
    }
  }
  std::ranges::sort(arrivals);
  std::vector<std::size_t> order;
  for (const auto& [time, number] : arrivals) order.push_back(number);
  return order;
}

using Packets = std::multiset<Bytes>;

void add_packets(Packets& packets, const Bytes& frame) {
  const VnetHeader vnet = read_vnet(BytesView(frame).first<kVnetBytes>());
  if (vnet.flags == 0) {
    packets.insert(frame);
    return;
  }
  for (Bytes& packet : testing::offload(frame)) packets.insert(std::move(packet));
}

void add_expected(Packets& packets, const Sent& sent, const std::set<std::size_t>& arrived) {
  const std::size_t chunk = (sent.frame.size() + 1 + sent.count - 1) / sent.count;
  const auto has = [&](std::size_t from, std::size_t to) {
    for (std::size_t i = from / chunk; i <= (to - 1) / chunk; ++i) {
      if (!arrived.contains(sent.first + i)) return false;
    }
    return true;
  };
  if (sent.count == 1 ? arrived.contains(sent.first) : has(0, chunk * sent.count)) {
    add_packets(packets, sent.frame);
    return;
  }
  if (!sent.is_super || !has(0, sent.headers)) return;
  const std::size_t size = read_vnet(BytesView(sent.frame).first<kVnetBytes>()).gso_size;
  const auto segments = testing::offload(sent.frame);
  for (std::size_t k = 0; k < segments.size(); ++k) {
    const std::size_t from = sent.headers + k * size;
    const std::size_t to = std::min(from + size, sent.frame.size());
    if (has(from, to)) packets.insert(segments[k]);
  }
}

void run(const Network& network, std::uint32_t seed) {
  SCOPED_TRACE(::testing::Message() << "seed " << seed << " loss " << network.loss
                                    << " displacement " << network.displacement);
  Random random(seed);
  FramePool pool;
  Sealer sealer(testing::test_key(), 1500);
  Opener opener(testing::test_key(), pool);
  DatagramBatch batch;
  Collected sink;
  const auto sent = send_all(sealer, batch, random);
  const auto datagrams = testing::datagrams_of(batch);
  ASSERT_EQ(datagrams.size(), sealer.next_counter());
  Instant now{seconds(5)};
  std::set<std::size_t> arrived;
  for (const std::size_t number : transmit(datagrams.size(), network, random)) {
    Bytes datagram = datagrams[number];
    EXPECT_EQ(opener.open(datagram, now, sink), arrived.insert(number).second);
    now += std::chrono::microseconds(1);
    if (random() % 100 == 0) opener.tick(now, sink);
  }
  opener.tick(now + kSalvageDelay, sink);
  opener.tick(now + kGiveUpDelay, sink);

  Packets expected;
  for (const Sent& frame : sent) add_expected(expected, frame, arrived);
  Packets delivered;
  for (const Bytes& frame : sink.frames) {
    EXPECT_TRUE(check_vnet(frame));
    add_packets(delivered, frame);
  }
  EXPECT_TRUE(delivered == expected) << delivered.size() << " packets of " << expected.size();
  EXPECT_EQ(pool.in_use(), 0u);
  EXPECT_EQ(opener.received_all_below(datagrams.size()), arrived.size() == datagrams.size());
  EXPECT_EQ(opener.counters().datagrams, arrived.size());
}

TEST(LaneProperty, WithoutLossAllArrivesWhateverTheOrder) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    run({.copies = 0.1, .displacement = seed % 4 * 5}, seed);
    run({.copies = 0.1, .displacement = kFarDisplacement}, seed);
  }
}

TEST(LaneProperty, WithLossAllThatCanBeSavedArrives) {
  for (std::uint32_t seed = 0; seed < kSeeds; ++seed) {
    run({.loss = 0.01, .copies = 0.05, .displacement = seed % 3 * 8}, seed);
    run({.loss = 0.2, .copies = 0.05, .displacement = kFarDisplacement}, seed);
  }
}

}  // namespace
}  // namespace godwit::wire

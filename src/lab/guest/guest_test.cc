// The parts of the guest program, without sockets.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "lab/guest/dirty_disk.hh"
#include "lab/guest/dirty_memory.hh"
#include "lab/guest/memory_counter.hh"
#include "lab/guest/netstat.hh"
#include "lab/guest/protocol.hh"
#include "lab/guest/sequence_log.hh"

namespace godwit::lab {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;

TEST(PacketCodec, RoundTripAndGoldenStart) {
  const Packet packet{.kind = PacketKind::stream,
                      .wanted_per_second = 1000,
                      .client = 1,
                      .sequence = 2,
                      .counter = 3,
                      .left_ns = 4,
                      .index = 5};
  const auto bytes = encode(packet);
  EXPECT_EQ(decode_packet(bytes), packet);
  EXPECT_EQ(to_hex(BytesView(bytes).first(16)), "47574c54010303e80000000000000001");
}

TEST(PacketCodec, RefusesWhatIsNotAPacket) {
  auto bytes = encode({});
  EXPECT_FALSE(decode_packet(BytesView(bytes).first(kPacketHeader - 1)));
  bytes[5] = std::byte{9};
  EXPECT_FALSE(decode_packet(bytes));
  bytes = encode({});
  bytes[0] = std::byte{0};
  EXPECT_FALSE(decode_packet(bytes));
}

TEST(SequenceLog, TellsLostDuplicatedAndReordered) {
  SequenceLog log;
  for (const std::uint64_t n : {0U, 1U, 4U, 3U, 4U, 7U}) log.arrived(n);
  EXPECT_EQ(log.received(), 5U);
  EXPECT_EQ(log.end(), 8U);
  EXPECT_THAT(log.duplicated(), ElementsAre(4));
  EXPECT_THAT(log.reordered(), ElementsAre(3));
  EXPECT_THAT(log.missing(0, 10), ElementsAre(2, 5, 6, 8, 9));
  EXPECT_EQ(log.arrived(kMaxSequence), SequenceLog::Verdict::out_of_range);
}

TEST(Netstat, FindsTheFieldOfItsGroup) {
  constexpr std::string_view kFile =
      "TcpExt: SyncookiesSent TCPTimeouts TCPLossProbes\nTcpExt: 0 17 3\n"
      "IpExt: InNoRoutes TCPTimeouts\nIpExt: 1 99\n";
  EXPECT_EQ(netstat_field(kFile, "TcpExt", "TCPTimeouts"), 17U);
  EXPECT_EQ(netstat_field(kFile, "IpExt", "InNoRoutes"), 1U);
  EXPECT_EQ(netstat_field(kFile, "TcpExt", "Absent"), 0U);
  EXPECT_EQ(netstat_field("", "TcpExt", "TCPTimeouts"), 0U);
  read_tcp_counters();
}

TEST(DirtyMemory, KeepsItsRateAndSeesDamage) {
  DirtyMemory memory(64 * DirtyMemory::kPageBytes, 1'000 * DirtyMemory::kPageBytes);
  milliseconds now{0};
  for (int i = 0; i <= 1000; ++i) memory.tick(now += milliseconds(1));
  EXPECT_EQ(memory.pages_written(), 1000U);
  memory.tick(now += std::chrono::hours(1));  // a pause is not made up for
  EXPECT_EQ(memory.pages_written(), 1020U);
  EXPECT_EQ(memory.check_all(), 0U);
  memory.page(7)[100] ^= 1;
  EXPECT_EQ(memory.check_all(), 1U);
}

TEST(DirtyMemory, DamageIsSeenBeforeAPageIsWrittenAgain) {
  DirtyMemory memory(4 * DirtyMemory::kPageBytes, 1'000 * DirtyMemory::kPageBytes);
  memory.page(2)[0] ^= 1;
  for (milliseconds now{0}; now < milliseconds(9); ++now) memory.tick(now);
  EXPECT_EQ(memory.damaged_pages(), 1U);
}

// In the build's folder: not every system's /tmp has direct I/O.
TEST(DirtyDisk, OneThatIsSlowerThanItsRateIsCheckedAllTheSame) {
  const auto path = std::filesystem::absolute("dirty_disk_test.img");
  std::ofstream{path};
  std::filesystem::resize_file(path, DirtyDisk::kBlocks * DirtyDisk::kBlockBytes);
  {
    DirtyDisk disk(path, 1ULL << 40);
    for (int i = 0; i < 5; ++i) disk.check_all();
    EXPECT_GT(disk.written(), 0U);
    EXPECT_EQ(disk.damaged(), 0U);
  }
  std::filesystem::remove(path);
}

TEST(MemoryCounter, SeesAPageThatWasRolledBack) {
  MemoryCounter counter;
  for (int i = 0; i < 5; ++i) counter.increment();
  EXPECT_EQ(counter.value(), 5U);
  EXPECT_TRUE(counter.is_intact());
  *counter.plain() = 3;
  counter.increment();
  EXPECT_EQ(counter.damaged(), 1U);
}

}  // namespace
}  // namespace godwit::lab

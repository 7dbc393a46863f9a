// The parser on hand-made streams: the corners that a captured one does not have. The streams of a
// real QEMU are in test/stream.
#include "stream/qemu_parser.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "stream/qemu_rebuild.hh"

namespace godwit::stream {
namespace {

using testing::ElementsAre;
using Kind = QemuMark::Kind;

// Writes streams as QEMU would.
class Stream {
 public:
  Stream() { put().u32(qemu_format::kMagic).u32(qemu_format::kVersion); }
  Writer put() { return Writer(bytes); }
  Stream& configuration() {
    put().u8(7).u32(2).bytes(as_bytes("pc"));
    return *this;
  }
  Stream& section(std::uint8_t type, std::uint32_t id, std::string_view name,
                  std::uint32_t version = 4) {
    put().u8(type).u32(id).text8(name).u32(0).u32(version);
    return *this;
  }
  Stream& more(std::uint8_t type, std::uint32_t id) { return put().u8(type).u32(id), *this; }
  Stream& footer(std::uint32_t id) { return put().u8(0x7e).u32(id), *this; }
  Stream& eos() { return put().u64(0x10), *this; }
  Stream& blocks(std::vector<std::pair<std::string, std::uint64_t>> list) {
    std::uint64_t total = 0;
    for (auto& [name, length] : list) total += length;
    put().u64(total | 0x04);
    for (auto& [name, length] : list) put().text8(name).u64(length);
    return *this;
  }
  Stream& page(std::string_view block, std::uint64_t offset, std::size_t size = 4096) {
    put().u64(offset | 0x08 | (block.empty() ? 0x20 : 0));
    if (!block.empty()) put().text8(block);
    for (std::size_t i = 0; i < size; ++i) bytes.push_back(static_cast<std::byte>(i * 7 + offset));
    return *this;
  }
  Stream& zero(std::string_view block, std::uint64_t offset) {
    put().u64(offset | 0x02 | (block.empty() ? 0x20 : 0));
    if (!block.empty()) put().text8(block);
    put().u8(0);
    return *this;
  }
  // Header, configuration and a set-up section for a guest of 2 blocks.
  static Stream begun() {
    Stream s;
    s.configuration().section(1, 3, "ram").blocks({{"pc.ram", 0x8000}, {"vga", 0x4000}});
    s.eos().footer(3);
    return s;
  }
  Bytes bytes;
};

struct Parsed {
  test::Rebuild whole;
  std::vector<Kind> kinds;
};

// Parses in one piece and bytewise: both must agree and give back the input.
Parsed parse(const Bytes& input) {
  Parsed parsed{test::rebuild(input), {}};
  std::mt19937_64 random(1);
  const test::Rebuild bytewise = test::rebuild(input, 1, random);
  EXPECT_EQ(parsed.whole.bytes, input);
  EXPECT_EQ(bytewise.bytes, input);
  EXPECT_EQ(bytewise.marks, parsed.whole.marks);
  EXPECT_EQ(bytewise.page_positions, parsed.whole.page_positions);
  EXPECT_EQ(parsed.whole.misplaced_marks, 0);
  for (const QemuMark& mark : parsed.whole.marks) parsed.kinds.push_back(mark.kind);
  return parsed;
}

TEST(QemuParser, PreCopyWithRoundsFinalSectionAndDevices) {
  Stream s = Stream::begun();
  s.more(2, 3).page("pc.ram", 0).page("", 0x2000).zero("vga", 0).eos().footer(3);
  s.more(2, 3).zero("", 0x1000).page("pc.ram", 0).eos().footer(3);  // "vga" goes on over the gap
  s.more(3, 3).page("", 0x2000).eos().footer(3);
  s.section(4, 9, "timer", 2).put().u64(0xdeadbeef);
  const Parsed parsed = parse(s.bytes);
  EXPECT_THAT(parsed.kinds,
              ElementsAre(Kind::kRamBegan, Kind::kRoundEnded, Kind::kFinalRamBegan,
                          Kind::kFinalRamEnded, Kind::kFirstDevice, Kind::kOpaque, Kind::kEnd));
  EXPECT_EQ(parsed.whole.stats.pages, 4u);
  EXPECT_EQ(parsed.whole.stats.zero_pages, 2u);
  EXPECT_EQ(parsed.whole.stats.rounds, 1u);
  EXPECT_EQ(parsed.whole.stats.ram_bytes, 0xc000u);
}

TEST(QemuParser, PostCopySkipsThePackageByLengthAndGoesOn) {
  Stream s = Stream::begun();
  s.more(2, 3).page("pc.ram", 0x1000).eos().footer(3);
  s.put().u8(8).u16(3).u16(16).u64(4096).u64(4096);  // advise
  s.put().u8(8).u16(7).u16(4).u32(11).bytes(as_bytes("device soup"));
  s.more(2, 3).page("", 0x3000).page("", 0).eos().footer(3);
  s.more(3, 3).eos().footer(3).put().u8(0);
  const Parsed parsed = parse(s.bytes);
  EXPECT_THAT(parsed.kinds,
              ElementsAre(Kind::kRamBegan, Kind::kFirstDevice, Kind::kPackageEnded,
                          Kind::kFinalRamBegan, Kind::kFinalRamEnded, Kind::kOpaque, Kind::kEnd));
  EXPECT_EQ(parsed.whole.stats.pages, 3u);
}

TEST(QemuParser, BlocksInHugePagesAndOtherTargetPageSizes) {
  Stream s;
  s.configuration().put().u8(5).text8("configuration/target-page-bits").u32(1).u32(14);
  s.section(1, 3, "ram");
  s.put().u64(0x10000 | 0x04).text8("a").u64(0x8000).u64(2 << 20).text8("b").u64(0x8000);
  s.put().u64(2 << 20);
  s.eos().footer(3).more(2, 3).page("b", 0x4000, 16384).eos().footer(3);
  const Parsed parsed = parse(s.bytes);
  EXPECT_THAT(parsed.kinds, ElementsAre(Kind::kRamBegan, Kind::kEnd));
  EXPECT_EQ(parsed.whole.stats.pages, 1u);
}

class GivesUp : public testing::TestWithParam<std::pair<const char*, Bytes>> {};

TEST_P(GivesUp, OnWhatItDoesNotKnowAndPassesItOn) {
  Bytes input = GetParam().second;
  // Were it still parsing, this would count as a page.
  append(input, Stream::begun().more(2, 3).page("pc.ram", 0).bytes);
  const Parsed parsed = parse(input);
  EXPECT_EQ(parsed.whole.stats.pages, 0u);
  EXPECT_THAT(parsed.kinds, testing::Contains(Kind::kOpaque));
}

Bytes begun_then(auto&& make) {
  Stream s = Stream::begun();
  make(s);
  return s.bytes;
}

INSTANTIATE_TEST_SUITE_P(
    All, GivesUp,
    testing::Values(
        std::pair{"WrongMagic", Bytes(8)}, std::pair{"OldVersion", from_hex("5145564d00000002")},
        std::pair{"HugeConfigurationName", from_hex("5145564d0000000307ffffffff")},
        std::pair{"UnknownSectionType", begun_then([](Stream& s) { s.put().u8(0x42); })},
        std::pair{"UnknownIterableSection",
                  begun_then([](Stream& s) { s.section(1, 4, "dirty-bitmap"); })},
        std::pair{"RamOfAnotherVersion", Stream().configuration().section(1, 3, "ram", 5).bytes},
        std::pair{"PartOfAnotherSection", begun_then([](Stream& s) { s.more(2, 8); })},
        std::pair{"CompressedPage",
                  begun_then([](Stream& s) { s.more(2, 3).put().u64(0x100 | 0x20); })},
        std::pair{"ContinuationOfNothing", begun_then([](Stream& s) { s.more(2, 3).zero("", 0); })},
        std::pair{"UnknownBlock", begun_then([](Stream& s) { s.more(2, 3).zero("x", 0); })},
        std::pair{"PageBeyondItsBlock",
                  begun_then([](Stream& s) { s.more(2, 3).zero("vga", 0x4000); })},
        std::pair{"BlockLargerThanTheSum",
                  [] {
                    Stream s;
                    s.configuration().section(1, 3, "ram");
                    s.put().u64(0x1000 | 0x04).text8("a").u64(0x2000);
                    return s.bytes;
                  }()},
        std::pair{"WrongFooter", begun_then([](Stream& s) { s.more(2, 3).eos().footer(5); })}),
    [](const auto& which) { return which.param.first; });

TEST(QemuParser, ACutRecordIsPassedAtTheEnd) {
  Stream s = Stream::begun();
  s.more(2, 3).page("pc.ram", 0);
  for (std::size_t cut = 0; cut < s.bytes.size(); cut += 1 + cut / 100) {
    const Bytes part(s.bytes.begin(), s.bytes.begin() + static_cast<std::ptrdiff_t>(cut));
    ASSERT_EQ(test::rebuild(part).bytes, part) << cut;
  }
}

TEST(QemuParser, AnEmptyStreamIsOnlyAnEnd) {
  EXPECT_THAT(parse({}).kinds, ElementsAre(Kind::kEnd));
}

}  // namespace
}  // namespace godwit::stream

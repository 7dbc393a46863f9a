#include "disk/record.hh"

#include <gmock/gmock.h>

namespace godwit::disk {
namespace {

using ::testing::HasSubstr;

const std::vector<ByteCount> kDisks = {{1 << 20}, {4096}};

Bytes bytes_of(std::string_view hex) { return from_hex(hex); }

TEST(DiskRecord, GoldenBytes) {
  Bytes out;
  const Bytes data = bytes_of("c0ffee00");
  append({.kind = RecordKind::kWrite,
          .disk = 1,
          .extent = {.offset = 0x200, .length = 4},
          .data = data},
         out);
  append({.kind = RecordKind::kZero, .disk = 0, .extent = {.offset = 0, .length = 65536}}, out);
  append({.kind = RecordKind::kFlush}, out);
  append({.kind = RecordKind::kEnd}, out);
  const Bytes digest(sizeof(Digest), std::byte{0xab});
  append({.kind = RecordKind::kCopy,
          .disk = 0,
          .extent = {.offset = kBlockBytes, .length = kBlockBytes},
          .data = digest},
         out);
  EXPECT_EQ(to_hex(out),
            "01010000000000040000000000000200c0ffee00"
            "02000000000100000000000000000000"
            "03000000000000000000000000000000"
            "04000000000000000000000000000000"
            "05000000000100000000000000010000abababababababababababababababab");
}

TEST(DiskRecord, ReadsWhatWasWrittenCutAnywhere) {
  Bytes out;
  const Bytes data(5000, std::byte{7});
  append({.kind = RecordKind::kWrite,
          .disk = 0,
          .extent = {.offset = 512, .length = data.size()},
          .data = data},
         out);
  append({.kind = RecordKind::kEnd}, out);
  for (const std::size_t chunk : {std::size_t{1}, std::size_t{7}, std::size_t{4096}, out.size()}) {
    RecordReader reader(kDisks);
    int seen = 0;
    for (std::size_t at = 0; at < out.size(); at += chunk) {
      reader.push(BytesView(out).subspan(at, std::min(chunk, out.size() - at)));
      for (auto record = reader.next(); *record; record = reader.next()) {
        ASSERT_TRUE(record);
        if (seen++ == 0) {
          EXPECT_TRUE(std::ranges::equal((*record)->data, data));
        } else {
          EXPECT_EQ((*record)->kind, RecordKind::kEnd);
        }
      }
    }
    EXPECT_EQ(seen, 2) << chunk;
  }
}

std::string refusal(std::string_view hex) {
  RecordReader reader(kDisks);
  reader.push(bytes_of(hex));
  const auto record = reader.next();
  return record ? "taken" : record.error().text;
}

TEST(DiskRecord, RefusesWhatIsNotOfTheseDisks) {
  EXPECT_THAT(refusal("00000000000000000000000000000000"), HasSubstr("kind 0"));
  EXPECT_THAT(refusal("06000000000000000000000000000000"), HasSubstr("kind 6"));
  EXPECT_THAT(refusal("05000000000100010000000000000000"), HasSubstr("not within"));  // too long
  EXPECT_THAT(refusal("03000001000000000000000000000000"), HasSubstr("kind 3"));      // reserved
  EXPECT_THAT(refusal("02020000000000010000000000000000"), HasSubstr("disk 2"));
  EXPECT_THAT(refusal("02010000000010010000000000000000"), HasSubstr("not within"));
  EXPECT_THAT(refusal("0201000000000001ffffffffffffffff"), HasSubstr("not within"));
  EXPECT_THAT(refusal("02010000000000000000000000000000"), HasSubstr("not within"));  // nothing
  EXPECT_THAT(refusal("01000000001000010000000000000000"), HasSubstr("not within"));  // too long
  EXPECT_THAT(refusal("03000000000000010000000000000000"), HasSubstr("extent"));
}

TEST(DiskRecord, NothingComesAfterTheEnd) {
  RecordReader reader(kDisks);
  Bytes out;
  append({.kind = RecordKind::kEnd}, out);
  append({.kind = RecordKind::kFlush}, out);
  reader.push(out);
  ASSERT_TRUE(reader.next());
  EXPECT_THAT(reader.next().error().text, HasSubstr("after the last"));
}

}  // namespace
}  // namespace godwit::disk

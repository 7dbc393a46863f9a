// With real files, made by qemu-img and qemu-io.
#include "qemu/disk_snapshots.hh"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/test_directory.hh"
#include "os/test_wait.hh"
#include "qemu/launch.hh"
#include "qemu/qemu_img.hh"
#include "qemu/snapshot_map.hh"

namespace godwit::qemu {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kSize = 64 << 20, kBlock = 64 << 10;

class DiskSnapshotsTest : public testing::Test {
 protected:
  DiskSnapshotsTest() {
    std::filesystem::permissions(directory_.path(), std::filesystem::perms(0777));
  }

  std::string img(std::vector<std::string> arguments) {
    const auto said = run_qemu_img(std::move(arguments));
    EXPECT_TRUE(said) << said.error().text;
    return said.value_or("");
  }
  void io(const std::string& command) {
    os::Command qemu_io = qemu_img({"-f", "qcow2", "-c", command, file_});
    qemu_io.argv[0] = "qemu-io";
    const auto done = os::run(qemu_io, {}, seconds(60));
    ASSERT_TRUE(done && done->status.success()) << (done ? done->err : done.error().text);
  }
  // Three states that have something in common, and a present that is another; one snapshot's disk
  // was smaller.
  void make_file(std::vector<std::string> create) {
    create.insert(create.begin(), {"create", "-q", "-f", "qcow2"});
    create.insert(create.end(), {file_, std::to_string(kSize / 2)});
    img(create);
    io("write -P 1 0 1M");
    img({"snapshot", "-c", "first", file_});
    img({"resize", "-q", "-f", "qcow2", file_, std::to_string(kSize)});
    io("write -P 2 512k 1M");
    io("write -P 3 40M 64k");
    img({"bitmap", "--add", file_, "changes"});
    img({"snapshot", "-c", "before upgrade", file_});
    io("write -P 4 0 128k");
    io("discard 600k 1M");
    img({"snapshot", "-c", "last", file_});
    io("write -P 5 8M 20M");
  }
  // What the map tells of the file, in another; its bytes.
  Result<std::uint64_t> copy_mapped() {
    const os::Fd from(::open(file_.c_str(), O_RDONLY | O_CLOEXEC));
    const auto size = std::filesystem::file_size(file_);
    std::filesystem::remove(copy_);
    img({"create", "-q", "-f", "raw", copy_, std::to_string((size + 511) / 512 * 512)});
    const os::Fd to(::open(copy_.c_str(), O_WRONLY | O_CLOEXEC));
    std::uint64_t copied = 0;
    SnapshotMap map({size}, [&](FilePart part) {
      // As they cross: whole blocks, with what else is in them.
      const std::uint64_t begin = part.offset / kBlock * kBlock;
      const std::uint64_t end = std::min((part.offset + part.length + kBlock - 1) / kBlock * kBlock,
                                         static_cast<std::uint64_t>(size));
      Bytes bytes(end - begin);
      EXPECT_EQ(::pread(from.number(), bytes.data(), bytes.size(), off_t(begin)),
                ssize_t(bytes.size()));
      EXPECT_EQ(::pwrite(to.number(), bytes.data(), bytes.size(), off_t(begin)),
                ssize_t(bytes.size()));
      copied += part.length;
    });
    while (const auto part = map.wants()) {
      Bytes bytes(part->length);
      EXPECT_EQ(::pread(from.number(), bytes.data(), bytes.size(), off_t(part->offset)),
                ssize_t(part->length));
      if (auto done = map.take(bytes); !done) return std::unexpected(done.error());
    }
    return copied;
  }
  std::string adopt(std::vector<Snapshot> snapshots,
                    const DiskSpec& disk = {.name = "root", .size = {kSize}},
                    const std::filesystem::path& image = {}) {
    std::optional<std::string> said;
    SnapshotAdoption adoption(loop_, disk, {.file = copy_, .image = image}, std::move(snapshots),
                              [&](const Result<>& done) { said = done ? "" : done.error().text; });
    return os::run_until(loop_, [&] { return said.has_value(); }) ? *said : "nothing came";
  }
  void expect_copy_of_less_than(ByteCount most) {
    const auto snapshots = read_snapshots(file_);
    ASSERT_TRUE(snapshots);
    const auto copied = copy_mapped();
    ASSERT_TRUE(copied) << copied.error().text;
    EXPECT_LT(*copied, most.bytes) << "of the present there are 20 MiB beside them";
    EXPECT_EQ(adopt(*snapshots), "");
    expect_the_same();
  }
  void expect_the_same() {
    const auto snapshots = read_snapshots(file_);
    ASSERT_TRUE(snapshots);
    const auto there = read_snapshots(copy_);
    ASSERT_TRUE(there);
    EXPECT_EQ(*there, *snapshots);
    img({"check", "-q", copy_});
    for (const Snapshot& each : *snapshots) {
      for (const auto& [from, to] :
           {std::pair(file_, directory_ / "from.raw"), std::pair(copy_, directory_ / "to.raw")}) {
        img({"convert", "-f", "qcow2", "-l", "snapshot.id=" + each.id, "-O", "raw", from, to});
      }
      img({"compare", "-q", "-f", "raw", "-F", "raw", directory_ / "from.raw",
           directory_ / "to.raw"});
    }
  }

  os::Loop loop_;
  TestDirectory directory_;
  const std::string file_ = directory_ / "root.qcow2", copy_ = directory_ / "copy";
};

TEST_F(DiskSnapshotsTest, AreMadeAgainOfWhatTheMapTellsOf) {
  for (const char* options :
       {"cluster_size=64k", "cluster_size=512", "cluster_size=2M",
        "cluster_size=128k,extended_l2=on,compression_type=zstd,lazy_refcounts=on"}) {
    SCOPED_TRACE(options);
    std::filesystem::remove(file_);
    make_file({"-o", options});
    expect_copy_of_less_than(ByteCount{20 << 20});
  }
}

TEST_F(DiskSnapshotsTest, OfAFileOfAnEarlierVersion) {
  img({"create", "-q", "-f", "qcow2", "-o", "compat=0.10", file_, std::to_string(kSize)});
  io("write -P 1 0 1M");
  img({"snapshot", "-c", "first", file_});
  io("write -P 5 8M 20M");
  expect_copy_of_less_than(ByteCount{2 << 20});
}

TEST_F(DiskSnapshotsTest, OfCompressedClusters) {
  make_file({});
  img({"convert", "-q", "-c", "-f", "qcow2", "-O", "qcow2", file_, copy_});
  std::filesystem::rename(copy_, file_);
  img({"snapshot", "-c", "all of it", file_});
  expect_copy_of_less_than(ByteCount{21 << 20});
}

TEST_F(DiskSnapshotsTest, OnAnImageThatIsElsewhereAtTheTarget) {
  const std::string here = directory_ / "here.raw", there = directory_ / "there.raw";
  img({"create", "-q", "-f", "raw", here, std::to_string(kSize)});
  img({"create", "-q", "-f", "qcow2", "-b", here, "-F", "raw", file_});
  io("write -P 1 0 1M");
  img({"snapshot", "-c", "first", file_});
  const auto snapshots = read_snapshots(file_);
  ASSERT_TRUE(copy_mapped());
  std::filesystem::rename(here, there);
  EXPECT_EQ(adopt(*snapshots,
                  {.name = "root",
                   .size = {kSize},
                   .image = {.name = "image", .format = DiskFormat::raw, .sha256 = ""}},
                  there),
            "");
  EXPECT_THAT(img({"info", copy_}), HasSubstr("backing file: " + there));
}

TEST_F(DiskSnapshotsTest, AFileThatHasOthersThanWasToldIsNoDisk) {
  make_file({});
  auto snapshots = *read_snapshots(file_);
  ASSERT_TRUE(copy_mapped());
  snapshots.front().made_ns ^= 1;
  EXPECT_THAT(adopt(snapshots), HasSubstr("not those of the source"));
  std::filesystem::resize_file(copy_, 0);
  EXPECT_THAT(adopt(snapshots), HasSubstr("no qcow2 file"));
}

std::string refusal(Bytes header) {
  SnapshotMap map({1 << 20}, [](FilePart) {});
  const auto done = map.take(header);
  return done ? "" : done.error().text;
}

TEST(SnapshotMap, RefusesWhatItCannotRead) {
  const Bytes good = from_hex(
      "514649fb00000003"
      "000000000000000000000000"
      "00000010"
      "0000000004000000"
      "00000000"
      "00000001"
      "0000000000030000"
      "000000000001000000000001"
      "00000000"
      "0000000000000000"
      "0000000000000000"
      "0000000000000000"
      "0000000000000000"
      "00000004"
      "00000068");
  ASSERT_EQ(good.size(), 104u);
  EXPECT_EQ(refusal(good), "");
  const auto with = [&](std::size_t at, int value) {
    Bytes changed = good;
    changed[at] = static_cast<std::byte>(value);
    return changed;
  };
  EXPECT_THAT(refusal(with(0, 0)), HasSubstr("no qcow2 file"));
  EXPECT_THAT(refusal(with(7, 4)), HasSubstr("no qcow2 file"));
  EXPECT_THAT(refusal(with(23, 8)), HasSubstr("damaged")) << "clusters of 256 bytes";
  EXPECT_THAT(refusal(with(35, 2)), HasSubstr("encrypted"));
  EXPECT_THAT(refusal(with(79, 4)), HasSubstr("another file"));
  EXPECT_THAT(refusal(with(79, 2)), HasSubstr("corrupt"));
  EXPECT_THAT(refusal(with(79, 32)), HasSubstr("not known"));
  EXPECT_THAT(refusal({good.begin(), good.end() - 1}), HasSubstr("no qcow2 file"));
  Bytes far = with(63, 1);  // a snapshot
  far[64] = std::byte{1};   // whose table is far away
  EXPECT_THAT(refusal(far), HasSubstr("behind its end"));
}

}  // namespace
}  // namespace godwit::qemu

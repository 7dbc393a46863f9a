// What libnbd (nbdinfo, nbdcopy) and QEMU (qemu-img, qemu-io) make of our side of NBD, and that
// what they write is what they read.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/test_directory.hh"
#include "memory_server.hh"
#include "os/child.hh"

namespace godwit::nbd {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kDiskBytes = 24 << 20;
constexpr seconds kPatience{60};  // which only a client that hangs meets

bool is_installed(const std::string& program) {
  return ::access(("/usr/bin/" + program).c_str(), X_OK) == 0;
}

class NbdClients : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* program : {"nbdinfo", "nbdcopy", "qemu-img", "qemu-io"}) {
      ASSERT_TRUE(is_installed(program)) << "needs " << program << ": ./dev setup";
    }
    std::mt19937_64 random(1);
    data_.resize(kDiskBytes);
    for (std::size_t at = 0; at < data_.size(); at += sizeof(std::uint64_t)) {
      const std::uint64_t word = random();
      std::memcpy(data_.data() + at, &word, sizeof word);
    }
    // Holes, which clients find.
    std::fill_n(data_.begin() + (3 << 20), 5 << 20, '\0');
    std::ofstream(file("data"), std::ios::binary) << data_;
  }

  std::string file(const std::string& name) const { return directory_ / name; }
  std::string content(const std::string& name) const {
    std::ifstream in(file(name), std::ios::binary);
    std::string bytes(std::filesystem::file_size(file(name)), '\0');
    in.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  os::Output run(std::vector<std::string> argv) {
    auto output = os::run({.argv = std::move(argv)}, {}, kPatience);
    if (!output) ADD_FAILURE() << output.error().text;
    return output.value_or(os::Output{});
  }
  std::string run_well(std::vector<std::string> argv) {
    const std::string program = argv[0];
    const os::Output output = run(std::move(argv));
    EXPECT_TRUE(output.status.success()) << program << ": " << output.out << output.err;
    return output.out;
  }
  // Its commands, on the disk named `name`. Patterns that it reads are compared by itself.
  std::string io(const std::vector<std::string>& commands, const std::string& name = "disk0") {
    std::vector<std::string> argv{"qemu-io", "-f", "raw", "-t", "none"};
    for (const std::string& each : commands) argv.insert(argv.end(), {"-c", each});
    argv.push_back(server_.uri(name));
    const os::Output output = run(std::move(argv));
    return output.out + output.err;
  }

  TestDirectory directory_;
  std::string data_;
  MemoryServer server_{directory_ / "nbd",
                       {{.name = "disk0", .size = {kDiskBytes}},
                        {.name = "blocks", .size = {kDiskBytes}, .minimum_block = {4096}},
                        {.name = "fast", .size = {kDiskBytes}, .fast_zero = true},
                        {.name = "sealed", .size = {kDiskBytes}, .read_only = true}}};
};

TEST_F(NbdClients, NbdinfoTellsSizeAndFlags) {
  const auto told = nlohmann::json::parse(run_well({"nbdinfo", "--json", server_.uri("disk0")}));
  EXPECT_EQ(told["protocol"], "newstyle-fixed");
  EXPECT_EQ(told["structured"], true);
  const auto& disk = told["exports"][0];
  EXPECT_EQ(disk["export-name"], "disk0");
  EXPECT_EQ(disk["export-size"], kDiskBytes);
  EXPECT_EQ(disk["is_read_only"], false);
  for (const char* can : {"can_flush", "can_fua", "can_trim", "can_zero", "can_df"}) {
    EXPECT_EQ(disk[can], true) << can;
  }
  for (const char* cannot : {"can_multi_conn", "can_cache", "can_fast_zero"}) {
    EXPECT_EQ(disk[cannot], false) << cannot;
  }
  EXPECT_EQ(disk["block_size_minimum"], 1);
  EXPECT_EQ(disk["block_size_preferred"], 4096);
  EXPECT_EQ(disk["block_size_maximum"], kMaxPayload.bytes);
  const auto listed =
      nlohmann::json::parse(run_well({"nbdinfo", "--json", "--list", server_.uri("")}));
  ASSERT_EQ(listed["exports"].size(), 4u);
  EXPECT_EQ(listed["exports"][1]["block_size_minimum"], 4096);
  EXPECT_EQ(listed["exports"][2]["can_fast_zero"], true);
  EXPECT_EQ(listed["exports"][3]["is_read_only"], true);
  EXPECT_EQ(server_.counts().failed, 0) << server_.counts().failure;
}

TEST_F(NbdClients, UnknownExportIsSaid) {
  const os::Output libnbd = run({"nbdinfo", server_.uri("none")});
  EXPECT_FALSE(libnbd.status.success());
  const os::Output qemu = run({"qemu-img", "info", server_.uri("none")});
  EXPECT_FALSE(qemu.status.success());
  EXPECT_THAT(qemu.err, HasSubstr("Requested export not available"));
}

TEST_F(NbdClients, NbdcopyWritesAndReads) {
  run_well({"nbdcopy", "--flush", file("data"), server_.uri("disk0")});
  run_well({"nbdcopy", server_.uri("disk0"), file("back")});
  EXPECT_TRUE(content("back") == data_);
  const auto counts = server_.counts();
  EXPECT_GT(counts.zeroes + counts.trims, 0) << "of the holes";
  EXPECT_GT(counts.flushes, 0);
  EXPECT_GT(counts.most_outstanding, 1u) << "it has 64 requests in flight";
  EXPECT_LE(counts.most_outstanding, kMaxOutstanding);
  EXPECT_EQ(counts.failed, 0) << counts.failure;
}

TEST_F(NbdClients, QemuImgWritesAndReads) {
  for (const std::string disk : {"disk0", "blocks", "fast"}) {
    run_well({"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "-W", "-m", "16", file("data"),
              server_.uri(disk)});
    run_well({"qemu-img", "compare", "-f", "raw", "-F", "raw", file("data"), server_.uri(disk)});
  }
  run_well({"nbdcopy", server_.uri("blocks"), file("back")});
  EXPECT_TRUE(content("back") == data_);
  EXPECT_EQ(server_.counts().failed, 0) << server_.counts().failure;
}

TEST_F(NbdClients, QemuIoDoesEachCommand) {
  const std::string said =
      io({"write -P 0x11 0 8M", "write -f -P 0x22 1M 64k", "write -z 2M 1M", "write -z -u -f 4M 1M",
          "discard 6M 1M", "flush", "write -P 0x33 12345 678", "read -P 0x22 1M 64k",
          "read -P 0 2M 1M", "read -P 0x11 3M 1M", "read -P 0 4M 1M", "read -P 0 6M 1M",
          "read -P 0x33 12345 678", "read -P 0x11 13023 1000", "aio_write -P 0x44 9M 4M",
          "aio_write -P 0x55 13M 4M", "aio_flush", "read -P 0x44 9M 4M", "read -P 0x55 13M 4M"});
  EXPECT_THAT(said, testing::Not(HasSubstr("failed"))) << said;
  EXPECT_THAT(said, testing::Not(HasSubstr("rror"))) << said;
  const auto counts = server_.counts();
  EXPECT_GE(counts.writes, 8 + 1 + 1 + 8) << "of 1 MiB, as advertised";
  EXPECT_EQ(counts.zeroes, 2);
  EXPECT_EQ(counts.no_hole, 1);
  EXPECT_EQ(counts.trims, 1);
  EXPECT_EQ(counts.fua, 2);
  EXPECT_GT(counts.flushes, 0);
  EXPECT_EQ(counts.failed, 0) << counts.failure;
}

TEST_F(NbdClients, RefusalsReachTheClient) {
  EXPECT_THAT(io({"write 0 4k"}, "sealed"), HasSubstr("Permission denied"));
  EXPECT_EQ(server_.counts().writes, 0);
  EXPECT_EQ(server_.counts().failed, 0) << server_.counts().failure;
}

}  // namespace
}  // namespace godwit::nbd

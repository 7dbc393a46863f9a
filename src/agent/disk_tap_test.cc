#include "agent/disk_tap.hh"

#include <gtest/gtest.h>

#include <filesystem>

#include "nbd/nbd_testing.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

// Of the server: greeting, INFO of the export and of block sizes, ACK.
constexpr std::size_t kGreetingAndInfo = 18 + (20 + 12) + (20 + 14) + 20;
constexpr std::size_t kSimpleReply = 16;

class DiskTapTest : public testing::Test {
 protected:
  // With a client that has chosen its disk.
  void serve(std::function<void(const DiskTap::Write&)> on_write) {
    tap_ = std::make_unique<DiskTap>(loop_, path_, std::vector{nbd::test::disk()},
                                     DiskTap::Events{.write = std::move(on_write), .lost = {}});
    client_ = os::unix_connect(loop_, path_);
    out_ = hello();
    client_->start({.readable =
                        [this] {
                          Bytes into(4096);
                          while (const auto count = client_->read(into)) received_ += count;
                        },
                    .writable = [this] { write(); },
                    .closed = [](const std::string&) {}});
    ASSERT_TRUE(os::run_until(loop_, [&] { return received_ == kGreetingAndInfo; }));
  }
  void write() { sent_ += client_->write(BytesView(out_).subspan(sent_)); }

  static Bytes hello() {
    Bytes bytes = nbd::test::client_flags();
    append(bytes, nbd::test::option(7, nbd::test::info_data("disk0")));
    return bytes;
  }
  static Bytes write_of(std::uint64_t cookie, std::size_t length) {
    return nbd::test::encode({.command = 1,
                              .cookie = cookie,
                              .offset = cookie << 20,
                              .length = static_cast<std::uint32_t>(length),
                              .payload = Bytes(length)});
  }

  os::Loop loop_;
  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("disk-tap-" + std::to_string(::getpid())))
          .string();
  std::unique_ptr<DiskTap> tap_;
  std::unique_ptr<os::ByteStream> client_;
  Bytes out_;
  std::size_t sent_ = 0, received_ = 0;
};

TEST_F(DiskTapTest, TellsEachWriteAndItsAnswerGoesBack) {
  std::vector<std::uint64_t> offsets;
  serve([&](const DiskTap::Write& write) {
    offsets.push_back(write.request.offset);
    tap_->answer(write.number);
  });
  for (std::uint64_t cookie = 1; cookie <= 3; ++cookie) append(out_, write_of(cookie, 512));
  write();
  EXPECT_TRUE(
      os::run_until(loop_, [&] { return received_ == kGreetingAndInfo + 3 * kSimpleReply; }));
  EXPECT_EQ(offsets, (std::vector<std::uint64_t>{1 << 20, 2 << 20, 3 << 20}));
}

// As when a move is aborted: of what was just answered something is still to be done, and QEMU goes
// on writing.
TEST_F(DiskTapTest, EndsWhileMoreComes) {
  int writes = 0;
  serve([&](const DiskTap::Write& write) {
    ++writes;
    tap_->answer(write.number);
  });
  append(out_, write_of(1, 512));
  write();
  ASSERT_TRUE(os::run_until(loop_, [&] { return writes == 1; }));
  append(out_, write_of(2, 512));
  write();
  tap_.reset();
  for (int i = 0; i < 5; ++i) loop_.run_once(Nanoseconds(0));
  EXPECT_EQ(writes, 1);
}

}  // namespace
}  // namespace godwit::agent

// How disks on their way out are let go.
#include "agent/disk_source.hh"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include "agent/played_qemu_testing.hh"
#include "base/test_directory.hh"
#include "os/test_wait.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;

VmRecord record_of(const os::Child& process) {
  VmRecord record{.spec = {}, .process = process.identity(), .stopped = {}, .arriving = {}};
  record.spec.name = "web";
  record.spec.disks.push_back({.name = "root", .size = ByteCount{64 << 20}});
  return record;
}

class DiskSourceTest : public testing::Test {
 protected:
  // QEMU's NBD server says nothing: whoever connects is in its handshake.
  std::optional<Json> answer(const std::string& command, const Json& arguments) {
    if (command == "nbd-server-start") {
      exports_ =
          os::Listener::unix_(loop_, arguments["addr"]["data"]["path"], 0600,
                              [this](auto stream, const auto&) { client_ = std::move(stream); });
    }
    if (command == "nbd-server-stop" && client_) ended_with_client_ = has_client();
    return Json{{"return", command == "query-block-jobs" ? Json::array() : Json::object()}};
  }
  bool has_client() const {
    std::byte nothing{};
    return ::recv(client_->fd().number(), &nothing, 1, MSG_PEEK | MSG_DONTWAIT) != 0;
  }

  os::Loop loop_;
  TestDirectory directory_;
  std::unique_ptr<os::Listener> exports_;
  std::unique_ptr<os::SocketStream> client_;
  std::optional<bool> ended_with_client_;
  PlayedQemu qemu_{loop_, (directory_ / "qmp.sock").string(),
                   [this](const std::string& command, const Json& arguments) {
                     return answer(command, arguments);
                   }};
  Vm vm_{loop_, record_of(qemu_.process()), qemu::VmPaths{directory_.path()},
         os::Child::adopt(qemu_.process().identity()).value()};
  TransferLink link_{loop_,
                     {},
                     stream::Role::kSource,
                     TransferLink::Disks::some,
                     std::nullopt,
                     {.mark = {}, .lane_lost = {}, .memory_verified = {}, .failed = {}}};
};

// Else it and its guest stand for ever: see qemu::stop_exports().
TEST_F(DiskSourceTest, QemusServerEndsAfterOurClients) {
  DiskSource disks(loop_, vm_, link_, disk::Mode::async,
                   {.begun = {}, .ready = {}, .in_step = {}, .settled = {}, .failed = {}});
  disks.start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return client_ != nullptr; }));
  EXPECT_TRUE(has_client());
  bool abandoned = false;
  disks.abandon([&] { abandoned = true; });
  ASSERT_TRUE(os::run_until(loop_, [&] { return abandoned; }));
  EXPECT_EQ(ended_with_client_, false);
}

// Whoever asks last is told, once, and QEMU is asked for each thing once.
TEST_F(DiskSourceTest, ThoseThatAreLetGoAlreadyAreNotLetGoTwice) {
  DiskSource disks(loop_, vm_, link_, disk::Mode::async,
                   {.begun = {}, .ready = {}, .in_step = {}, .settled = {}, .failed = {}});
  disks.start();
  ASSERT_TRUE(os::run_until(loop_, [&] { return client_ != nullptr; }));
  qemu_.commands.clear();
  int first = 0, last = 0;
  disks.abandon([&] { ++first; });
  disks.abandon([&] { ++last; });
  ASSERT_TRUE(os::run_until(loop_, [&] { return last > 0; }));
  loop_.run_once(milliseconds(10));
  EXPECT_EQ(first, 0);
  EXPECT_EQ(last, 1);
  EXPECT_EQ(std::ranges::count(qemu_.commands, "nbd-server-stop"), 1);
}

}  // namespace
}  // namespace godwit::agent

#include "qemu/kept_socket.hh"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "base/test_directory.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"

namespace godwit::qemu {
namespace {

std::string say_and_hear(const os::Fd& from, const os::Fd& to) {
  std::array<char, 16> heard{};
  EXPECT_EQ(::send(from.number(), "hello", 5, 0), 5);
  const auto count = ::recv(to.number(), heard.data(), heard.size(), 0);
  return {heard.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
}

// A child that sleeps keeps one end, as QEMU does.
TEST(KeptSocket, EitherEndIsFoundInTheProcessThatKeepsIt) {
  if (::geteuid() != 0) GTEST_SKIP() << "pidfd_getfd needs to be allowed to trace";
  os::Loop loop;
  const TestDirectory directory;
  const auto path = directory / "kept.sock";
  for (const SocketEnd end : {SocketEnd::kAccepted, SocketEnd::kConnected}) {
    std::unique_ptr<os::SocketStream> accepted;
    const auto listener = os::Listener::unix_(
        loop, path.string(), 0600, [&](auto stream, const auto&) { accepted = std::move(stream); });
    const auto connected = os::unix_connect(loop, path.string());
    ASSERT_TRUE(os::run_until(loop, [&] { return accepted != nullptr; }));
    const auto& kept = end == SocketEnd::kAccepted ? accepted->fd() : connected->fd();
    const auto& other = end == SocketEnd::kAccepted ? connected->fd() : accepted->fd();
    os::Command command;
    command.argv = {"sleep", "60"};
    command.fds = {{kept.number(), 7}};
    auto child = os::Child::spawn(std::move(command));
    const auto found = find_kept_socket(child, path, end);
    ASSERT_TRUE(found) << found.error().text;
    EXPECT_EQ(say_and_hear(*found, other), "hello");
    EXPECT_FALSE(find_kept_socket(child, directory / "other.sock", end));
  }
}

}  // namespace
}  // namespace godwit::qemu

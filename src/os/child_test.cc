#include "os/child.hh"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "os/netlink.hh"
#include "os/netns.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"

namespace godwit::os {
namespace {

Command shell(std::string script) { return {.argv = {"sh", "-c", std::move(script)}}; }

Command sleeper() { return {.argv = {"sleep", "1000"}}; }

TEST(Child, RunGivesStatusOutputAndErrors) {
  const auto output = run(shell("cat; echo oops >&2; exit 3"), "from stdin");
  ASSERT_TRUE(output);
  EXPECT_EQ(output->status.text(), "exit status 3");
  EXPECT_EQ(output->out, "from stdin");
  EXPECT_EQ(output->err, "oops\n");
}

TEST(Child, RunTakesMuchInputAndBoundsOutput) {
  const std::string input(3 * kOutputLimit, 'x');
  const auto output = run({.argv = {"cat"}}, input);
  ASSERT_TRUE(output);
  EXPECT_TRUE(output->status.success());
  EXPECT_EQ(output->out.size(), kOutputLimit);
}

TEST(Child, RunEndsWhatTakesTooLong) {
  const auto output = run(sleeper(), {}, milliseconds(50));
  ASSERT_FALSE(output);
  EXPECT_NE(output.error().text.find("took longer"), std::string::npos);
}

TEST(Child, FailuresBeforeTheProgramRunsAreReported) {
  EXPECT_THROW(Child::spawn({.argv = {"no-such-program-xyz"}}), SetupError);
  EXPECT_THROW(Child::spawn({.argv = {"/etc/passwd"}}), SetupError);
  auto command = sleeper();
  command.cwd = "/nonexistent";
  try {
    Child::spawn(command);
    FAIL();
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("change directory"), std::string::npos);
  }
}

TEST(Child, RunsOnlyAfterItWasRecorded) {
  const std::string file = ::testing::TempDir() + "godwit-started-" + std::to_string(::getpid());
  const auto exists = [&] { return ::access(file.c_str(), F_OK) == 0; };
  auto command = shell("touch " + file);
  ProcessIdentity recorded;
  command.before_start = [&](const ProcessIdentity& identity) {
    EXPECT_EQ(identify(identity.pid), identity);
    EXPECT_FALSE(exists());
    recorded = identity;
  };
  Child child = Child::spawn(command);
  EXPECT_EQ(child.identity(), recorded);
  EXPECT_TRUE(child.wait().success());
  EXPECT_TRUE(exists());
  ::unlink(file.c_str());

  command.before_start = [&](const ProcessIdentity& identity) {
    recorded = identity;
    fail_setup("the journal is full");
  };
  EXPECT_THROW(Child::spawn(command), SetupError);
  EXPECT_NE(identify(recorded.pid), recorded);
  EXPECT_FALSE(exists());
}

// What an agent that is killed just then leaves: the process ends without having run the program.
TEST(Child, NeverRunsWhenWeDieBeforeItStarts) {
  const std::string file = ::testing::TempDir() + "godwit-orphan-" + std::to_string(::getpid());
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  const pid_t parent = ::fork();
  if (parent == 0) {
    auto command = shell("touch " + file);
    command.before_start = [&](const ProcessIdentity& identity) {
      [[maybe_unused]] const auto told =
          ::write(write_end.number(), &identity.pid, sizeof identity.pid);
      std::raise(SIGKILL);
    };
    Child::spawn_detached(std::move(command));
    ::_exit(0);
  }
  write_end.reset();
  pid_t orphan = -1;
  ASSERT_EQ(::read(read_end.number(), &orphan, sizeof orphan), ssize_t{sizeof orphan});
  // The pipe's other end is the orphan's too, until it ends.
  char more = 0;
  EXPECT_EQ(::read(read_end.number(), &more, 1), 0);
  int status = 0;
  ::waitpid(parent, &status, 0);
  EXPECT_NE(::access(file.c_str(), F_OK), 0);
}

TEST(Child, ExitAndSignalArriveInTheLoop) {
  Loop loop;
  std::string seen;
  auto first = Child::spawn(shell("exit 7"));
  auto second = Child::spawn(sleeper());
  first.on_exit(loop, [&](ExitStatus status) { seen += status.text() + ";"; });
  ASSERT_TRUE(run_until(loop, [&] { return !seen.empty(); }));
  second.on_exit(loop, [&](ExitStatus status) {
    second = Child();  // a handler may destroy its Child
    seen += status.text();
  });
  EXPECT_FALSE(second.poll());
  ASSERT_TRUE(second.kill(SIGTERM));
  ASSERT_TRUE(run_until(loop, [&] { return !second; }));
  EXPECT_EQ(seen, "exit status 7;killed by SIGTERM");
}

TEST(Child, DescriptorsGoUnderTheirNumbersAndNoOthers) {
  // The targets overlap the sources on purpose, crosswise.
  int a[2];
  int b[2];
  ASSERT_EQ(::pipe(a), 0);  // not close-on-exec: must be closed all the same
  ASSERT_EQ(::pipe(b), 0);
  const Fd fds[]{Fd(a[0]), Fd(a[1]), Fd(b[0]), Fd(b[1])};
  ASSERT_EQ(::write(a[1], "A", 1), 1);
  ASSERT_EQ(::write(b[1], "B", 1), 1);
  auto command =
      shell(fmt::format("head -c1 <&{}; head -c1 <&{}; ls /proc/self/fd | wc -l", b[0], a[0]));
  command.fds = {{a[0], b[0]}, {b[0], a[0]}};
  const auto output = run(command);
  ASSERT_TRUE(output);
  // ls sees 0, 1, 2, the two, and the directory it reads.
  EXPECT_EQ(output->out, "AB6\n") << output->err;
}

TEST(Child, UserSessionDirectoryAndEnvironment) {
  if (::geteuid() != 0) GTEST_SKIP() << "changing the user needs root";
  auto command = shell("id -u; id -G; pwd; echo $ONLY; cut -d' ' -f6 /proc/$$/stat; echo $$");
  command.user = {.uid = 65534, .gid = 65534, .groups = {}};
  command.cwd = "/tmp";
  command.env = {{"ONLY=this", "PATH=/usr/bin:/bin"}};
  command.new_session = true;
  const auto output = run(command);
  ASSERT_TRUE(output);
  std::istringstream lines(output->out);
  std::string uid, groups, directory, value, session, pid;
  lines >> uid >> groups >> directory >> value >> session >> pid;
  EXPECT_EQ(uid, "65534");
  EXPECT_EQ(groups, "65534");
  EXPECT_EQ(directory, "/tmp");
  EXPECT_EQ(value, "this");
  EXPECT_EQ(session, pid) << "it leads a session";
}

TEST(Child, DestroyingItEndsTheProcess) {
  ProcessIdentity identity;
  {
    const auto child = Child::spawn(sleeper());
    identity = child.identity();
    EXPECT_TRUE(identify(identity.pid));
  }
  EXPECT_FALSE(identify(identity.pid));
}

TEST(Child, ADetachedOneGoesOnAndIsAdopted) {
  ProcessIdentity identity;
  {
    const auto child = Child::spawn_detached(sleeper());
    identity = child.identity();
  }
  EXPECT_EQ(identify(identity.pid), identity);
  ASSERT_FALSE(Child::adopt({.pid = identity.pid, .start_time = identity.start_time + 1}));
  auto adopted = Child::adopt(identity);
  ASSERT_TRUE(adopted);
  Loop loop;
  bool ended = false;
  adopted->on_exit(loop, [&](ExitStatus) { ended = true; });
  ASSERT_TRUE(adopted->kill(SIGKILL));
  EXPECT_TRUE(run_until(loop, [&] { return ended; }));
  EXPECT_FALSE(adopted->kill(SIGKILL)) << "what was reaped takes no signal";
  EXPECT_FALSE(Child::adopt(identity));
}

TEST(Child, AGrandchildIsWatchedThoughItsStatusIsUnknown) {
  // The shell leaves a sleeper behind, which is then nobody's child that we could wait for.
  const auto output = run(shell("sleep 1000 >/dev/null 2>&1 & echo $!"));
  ASSERT_TRUE(output);
  const auto identity = identify(std::stoi(output->out));
  ASSERT_TRUE(identity);
  auto adopted = Child::adopt(*identity);
  ASSERT_TRUE(adopted);
  ASSERT_TRUE(adopted->kill(SIGKILL));
  const auto status = adopted->wait(kTestPatience);
  ASSERT_TRUE(status);
  EXPECT_EQ(status->text(), "ended");
}

TEST(Child, ItsDescriptorsCanBeCopied) {
  if (::geteuid() != 0) GTEST_SKIP() << "pidfd_getfd needs to be allowed to trace";
  auto [ours, theirs] = make_socket_pair();
  auto command = sleeper();
  command.fds = {{theirs.number(), 5}};
  command.user = {.uid = 65534, .gid = 65534};
  const auto child = Child::spawn(command);
  theirs.reset();
  const auto copy = child.copy_fd(5);
  ASSERT_TRUE(copy);
  ASSERT_EQ(::write(copy->number(), "x", 1), 1);
  char got = 0;
  EXPECT_EQ(::read(ours.number(), &got, 1), 1);
  EXPECT_FALSE(child.copy_fd(77));
}

TEST(Child, ItStartsInANamespace) {
  if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
  const auto netns = NetNamespace::create();
  auto command = shell("ls /sys/class/net 2>/dev/null; cat /proc/net/dev | tail -n +3 | wc -l");
  command.netns_fd = netns.fd().number();
  const auto output = run(command);
  ASSERT_TRUE(output);
  EXPECT_NE(output->out.find("1\n"), std::string::npos) << output->out;
}

}  // namespace
}  // namespace godwit::os

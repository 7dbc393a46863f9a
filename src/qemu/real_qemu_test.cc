// Two real QEMUs and the two halves of the migration conversation between them.
//
//   source QEMU --unix:PATH--> relay in this test --socket pair--> target QEMU
//
// The relay copies bytes both ways, as the agents do with a WAN in between.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>

#include <array>
#include <filesystem>

#include "os/child.hh"
#include "os/socket.hh"
#include "os/test_wait.hh"
#include "qemu/commands.hh"
#include "qemu/devices.hh"
#include "qemu/host.hh"
#include "qemu/launch.hh"
#include "qemu/migration.hh"

namespace godwit::qemu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr Nanoseconds kPatience = seconds(120);  // a busy machine boots TCG guests slowly

template <class Ready>
bool wait_until(os::Loop& loop, Ready&& ready) {
  const Instant deadline = loop.now() + kPatience;
  while (!ready()) {
    if (loop.now() >= deadline) return false;
    loop.run_once(milliseconds(20));
  }
  return true;
}

// Copies what comes in at either end out of the other.
class Relay final {
 public:
  void join(std::unique_ptr<os::ByteStream> one, std::unique_ptr<os::ByteStream> other) {
    ends_ = {std::move(one), std::move(other)};
    for (std::size_t i : {0U, 1U}) {
      ends_[i]->start({.readable = [this, i] { pump(i); },
                       .writable = [this, i] { pump(1 - i); },
                       .closed = [this, i](std::string) { ended(i); }});
    }
  }

 private:
  // A target that is gone must be seen by the source at once: QEMU 7.2 does not look at its return
  // path before the end, so half a close would not do.
  void ended(std::size_t end) {
    pump(end);
    if (end == 1) ends_[0].reset();
    if (end == 0 && ends_[1]) ends_[1]->finish();
  }
  void pump(std::size_t from) {
    if (!ends_[0]) return;
    std::string& kept = kept_[from];
    for (;;) {
      if (!kept.empty()) kept.erase(0, ends_[1 - from]->write(as_bytes(kept)));
      if (!kept.empty()) return;
      std::array<std::byte, 65536> chunk;
      const std::size_t count = ends_[from]->read(chunk);
      if (count == 0) return;
      kept = as_text(BytesView(chunk).first(count));
    }
  }

  std::array<std::unique_ptr<os::ByteStream>, 2> ends_;
  std::array<std::string, 2> kept_;
};

struct RealQemu : ::testing::Test {
  RealQemu() {
    char name[] = "/tmp/godwit-qemu-XXXXXX";
    directory = ::mkdtemp(name);
    std::filesystem::permissions(directory, std::filesystem::perms{0755});
    const auto host = probe_host(Accelerator::tcg);
    if (!host) throw SetupError(host.error().text);
    spec.id = *VmId::parse("00112233445566778899aabbccddeeff");
    spec.name = "web1";
    spec.memory = ByteCount{192ULL << 20};
    spec.machine = newest_machine(*host);
    spec.kernel = std::filesystem::absolute(GODWIT_GUEST_IMAGE "/vmlinuz");
    spec.initrd = std::filesystem::absolute(GODWIT_GUEST_IMAGE "/initrd.img");
    spec.append = "console=ttyS0 panic=-1 quiet godwit.dirty=20mbit";
  }
  ~RealQemu() override {
    for (os::Child* child : {&source, &target}) {
      if (*child) (void)child->kill(SIGKILL);
    }
    std::filesystem::remove_all(directory);
  }
  VmPaths paths(const char* who) { return {directory / who}; }

  void boot_source() {
    source = launch(spec, {.paths = paths("a"), .tap_fds = {}, .incoming_fd = {}}).child;
    const auto console = os::unix_connect(loop, paths("a").console());
    console->start({.readable =
                        [&] {
                          std::array<std::byte, 4096> chunk;
                          while (const auto count = console->read(chunk)) {
                            output += as_text(BytesView(chunk).first(count));
                          }
                        },
                    .writable = {},
                    .closed = {}});
    a = connect(paths("a"), "source");
    const bool booted = wait_until(
        loop, [&] { return output.find("godwit-guest ready") != std::string::npos; });
    ASSERT_TRUE(booted) << output << log_tail(paths("a"));
  }
  void start_target() {
    auto pair = os::make_socket_pair();
    Launched launched = launch(spec, {.paths = paths("b"),
                                      .tap_fds = {},
                                      .incoming_fd = pair.theirs.number()});
    target = std::move(launched.child);
    b = connect(paths("b"), "target");
    incoming.emplace(*b, IncomingMigration::Events{
                             .listening = [this] { listening = true; },
                             .loaded = [this] { loaded = true; },
                             .failed = [this](std::string reason) { incoming_error = reason; }});
    incoming->start(launched.incoming_uri);
    listener = os::Listener::unix_(
        loop, relay_path(), 0600,
        [this, ours = std::make_shared<os::Fd>(std::move(pair.ours))](auto stream, const auto&) {
          relay.join(std::move(stream), os::adopt_stream(loop, std::move(*ours), "target"));
        });
    ASSERT_TRUE(grant_to_qemu(relay_path()));
    ASSERT_TRUE(wait_until(loop, [&] { return listening || !incoming_error.empty(); }));
    ASSERT_EQ(incoming_error, "") << log_tail(paths("b"));
  }
  std::string relay_path() { return (directory / "migrate.sock").string(); }

  std::unique_ptr<Qmp> connect(const VmPaths& at, const std::string& who) {
    return Qmp::connect(loop, at.qmp(), who,
                        {.ready = {},
                         .event =
                             [this, who](const QmpEvent& event) {
                               events.push_back(who + " " + event.name);
                               if (who == "source" && outgoing) outgoing->event(event);
                               if (who == "target" && incoming) incoming->event(event);
                             },
                         .closed = [this, who](std::string) { closed.push_back(who); }});
  }
  void start_migration() {
    outgoing.emplace(*a, OutgoingMigration::Events{
                             .status = {},
                             .pre_switchover = [this] { pre_switchover = true; },
                             .completed = [this] { completed = true; },
                             .ended = [this](OutgoingMigration::End e) { end = std::move(e); }});
    outgoing->start({.uri = "unix:" + relay_path()});
  }
  void reach_pre_switchover() {
    ASSERT_TRUE(wait_until(loop, [&] { return info(*a).dirty_sync_count >= 2; }));
    bool raised = false;
    set_downtime_limit(*a, seconds(1), [&](Result<> done) { raised = done.has_value(); });
    ASSERT_TRUE(wait_until(loop, [&] { return raised && (pre_switchover || end); }));
    ASSERT_FALSE(end) << end->reason;
  }
  VmStatus status(Qmp& qmp) {
    std::optional<Result<VmStatus>> got;
    query_status(qmp, [&](Result<VmStatus> answer) { got = std::move(answer); });
    EXPECT_TRUE(wait_until(loop, [&] { return got.has_value(); }));
    return got && *got ? **got : VmStatus{.running = false, .state = "unknown"};
  }
  MigrationInfo info(Qmp& qmp) {
    std::optional<Result<MigrationInfo>> got;
    query_migrate(qmp, [&](Result<MigrationInfo> answer) { got = std::move(answer); });
    EXPECT_TRUE(wait_until(loop, [&] { return got.has_value(); }));
    return got && *got ? **got : MigrationInfo{};
  }

  os::Loop loop;
  std::filesystem::path directory;
  VmSpec spec;
  os::Child source, target;
  std::string output;
  std::unique_ptr<os::Listener> listener;
  Relay relay;
  std::unique_ptr<Qmp> a, b;
  std::optional<IncomingMigration> incoming;
  std::optional<OutgoingMigration> outgoing;
  bool listening = false, loaded = false, pre_switchover = false, completed = false;
  std::string incoming_error;
  std::optional<OutgoingMigration::End> end;
  std::vector<std::string> events, closed;
};

TEST_F(RealQemu, MovesWithAPauseBeforeAndAfterTheSwitch) {
  boot_source();
  start_target();
  std::optional<std::vector<std::string>> obstacles;
  unsupported_devices(*a, [&](auto result) { obstacles = result.value(); });
  start_migration();
  reach_pre_switchover();
  EXPECT_THAT(obstacles.value(), ElementsAre());

  EXPECT_FALSE(status(*a).running);
  EXPECT_EQ(status(*b).state, "inmigrate");
  const MigrationInfo before = info(*a);
  EXPECT_EQ(before.status, MigrationStatus::pre_switchover);
  EXPECT_EQ(before.page_bytes, 4096U);
  EXPECT_GT(before.total_bytes, spec.memory.bytes);
  EXPECT_GT(before.transferred_bytes, 20U << 20);
  EXPECT_THAT(events, ::testing::Contains("source STOP"));

  outgoing->proceed();
  ASSERT_TRUE(wait_until(loop, [&] { return (completed && loaded) || end; }));
  EXPECT_EQ(status(*a).state, "postmigrate");
  EXPECT_EQ(status(*b).state, "paused");
  EXPECT_EQ(info(*a).status, MigrationStatus::completed);
  EXPECT_GT(info(*a).downtime.count(), 0);

  std::optional<Result<>> running;
  cont_until_running(*b, [&](Result<> result) { running = std::move(result); });
  ASSERT_TRUE(wait_until(loop, [&] { return running.has_value(); }));
  EXPECT_TRUE(running->has_value());
  EXPECT_TRUE(status(*b).running);
  EXPECT_FALSE(status(*a).running);
}

TEST_F(RealQemu, AbortAtPreSwitchoverResumesTheSource) {
  boot_source();
  start_target();
  start_migration();
  reach_pre_switchover();
  EXPECT_FALSE(status(*a).running);
  outgoing->abort("the operator changed his mind");
  ASSERT_TRUE(wait_until(loop, [&] { return end.has_value(); }));
  EXPECT_TRUE(end->running);
  EXPECT_EQ(end->reason, "the operator changed his mind");
  EXPECT_TRUE(status(*a).running);
  EXPECT_EQ(info(*a).status, MigrationStatus::cancelled);
  // The target never ran: QEMU 7.2 ends when its stream breaks.
  ASSERT_TRUE(wait_until(loop, [&] { return !closed.empty() || !incoming_error.empty(); }));
}

TEST_F(RealQemu, ATargetThatDiesLeavesTheSourceRunning) {
  boot_source();
  start_target();
  start_migration();
  ASSERT_TRUE(wait_until(loop, [&] { return info(*a).dirty_sync_count >= 1; }));
  ASSERT_TRUE(target.kill(SIGKILL));
  ASSERT_TRUE(wait_until(loop, [&] { return end.has_value(); }));
  EXPECT_TRUE(end->running);
  EXPECT_THAT(end->reason, HasSubstr("failed"));
  EXPECT_TRUE(status(*a).running);
}

TEST_F(RealQemu, ACompletedButUnreleasedMigrationCanStillBeTakenBack) {
  boot_source();
  start_target();
  start_migration();
  reach_pre_switchover();
  outgoing->proceed();
  ASSERT_TRUE(wait_until(loop, [&] { return (completed && loaded) || end; }));
  ASSERT_TRUE(target.kill(SIGKILL));
  outgoing->abort("the target was lost");
  ASSERT_TRUE(wait_until(loop, [&] { return end.has_value(); }));
  EXPECT_TRUE(end->running) << end->reason;
}

}  // namespace
}  // namespace godwit::qemu

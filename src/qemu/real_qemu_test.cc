// Two real QEMUs and the two halves of the migration conversation between them.
//
//   source QEMU --unix:PATH--> relay in this test --socket pair--> target QEMU
//
// The relay copies bytes both ways, as the agents do with a WAN in between.
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/test_directory.hh"
#include "lab/guest/protocol.hh"
#include "os/child.hh"
#include "os/netlink.hh"
#include "os/socket.hh"
#include "os/tap_pair.hh"
#include "os/test_wait.hh"
#include "qemu/commands.hh"
#include "qemu/devices.hh"
#include "qemu/guest_network.hh"
#include "qemu/host.hh"
#include "qemu/launch.hh"
#include "qemu/migration.hh"
#include "qemu/nic_device.hh"
#include "qemu/nic_plug.hh"
#include "qemu/receive_ring.hh"
#include "qemu/trapped_frame.hh"

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
    kept_ = {};
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

// A thread of QEMU's that executes the guest, kept from running.
class HeldVcpu final {
 public:
  explicit HeldVcpu(pid_t qemu) {
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", qemu))) {
      std::string name;
      std::getline(std::ifstream(task.path() / "comm"), name);
      if (name.starts_with("CPU 0")) thread_ = std::stoi(task.path().filename().string());
    }
    if (::ptrace(PTRACE_SEIZE, thread_, 0, 0) != 0) throw SetupError("ptrace of a vCPU");
    hold();
  }
  ~HeldVcpu() { let_go(); }
  // It runs for some microseconds.
  void step() {
    ::ptrace(PTRACE_CONT, thread_, 0, 0);
    hold();
  }
  void hold() {
    ::ptrace(PTRACE_INTERRUPT, thread_, 0, 0);
    ::waitpid(thread_, nullptr, __WALL);
  }
  void let_go() {
    if (thread_ != 0) ::ptrace(PTRACE_DETACH, std::exchange(thread_, 0), 0, 0);
  }

 private:
  pid_t thread_ = 0;
};

struct RealQemu : ::testing::Test {
  RealQemu() {
    std::filesystem::permissions(directory.path(), std::filesystem::perms{0755});
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
  }
  VmPaths paths(const std::string& who) { return {directory / who}; }
  VmPaths target_paths() { return paths(fmt::format("b{}", targets)); }

  void boot_source(std::vector<int> tap_fds = {}) {
    source = launch(spec, {.paths = paths("a"), .tap_fds = std::move(tap_fds)}).child;
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
    const bool booted =
        wait_until(loop, [&] { return output.find("godwit-guest ready") != std::string::npos; });
    ASSERT_TRUE(booted) << output << log_tail(paths("a"));
  }
  void start_target(std::vector<int> tap_fds = {}) {
    auto pair = os::make_socket_pair();
    Launched launched = launch(spec, {.paths = target_paths(),
                                      .tap_fds = std::move(tap_fds),
                                      .incoming_fd = pair.theirs.number()});
    target = std::move(launched.child);
    b = connect(target_paths(), "target");
    incoming.emplace(*b, IncomingMigration::Events{
                             .listening = [this] { listening = true; },
                             .loaded = [this](bool) { loaded = true; },
                             .failed = [this](std::string reason) { incoming_error = reason; }});
    incoming->start(launched.incoming_uri);
    listener = os::Listener::unix_(
        loop, relay_path(), 0600,
        [this, ours = std::make_shared<os::Fd>(std::move(pair.ours))](auto stream, const auto&) {
          relay.join(std::move(stream), os::adopt_stream(loop, std::move(*ours), "target"));
        });
    ASSERT_TRUE(grant_to_qemu(relay_path()));
    ASSERT_TRUE(wait_until(loop, [&] { return listening || !incoming_error.empty(); }));
    ASSERT_EQ(incoming_error, "") << log_tail(target_paths());
  }
  // For the next.
  void forget_target() {
    outgoing.reset();
    incoming.reset();
    b.reset();
    listener.reset();
    (void)target.kill(SIGKILL);
    listening = loaded = pre_switchover = completed = false;
    incoming_error.clear();
    end.reset();
    closed.clear();
    ++targets;
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
                               if (unplugging) unplugging->on_event(event);
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
  const TestDirectory directory;
  VmSpec spec;
  os::Child source, target;
  int targets = 0;  // before this one
  std::string output;
  std::unique_ptr<os::Listener> listener;
  Relay relay;
  std::unique_ptr<Qmp> a, b;
  std::optional<IncomingMigration> incoming;
  std::optional<OutgoingMigration> outgoing;
  std::optional<NicUnplug> unplugging;
  bool listening = false, loaded = false, pre_switchover = false, completed = false;
  std::string incoming_error;
  std::optional<OutgoingMigration::End> end;
  std::vector<std::string> events, closed;
};

TEST_F(RealQemu, MovesWithAPauseBeforeAndAfterTheSwitch) {
  boot_source();
  start_target();
  std::optional<std::vector<std::string>> obstacles;
  unsupported_devices(*a, VmSpec{}, [&](auto result) {
    if (result) obstacles = std::move(*result);
  });
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

  std::vector<std::string> notices;
  if (const auto user = qemu_user(notices)) {
    struct stat process{};
    ASSERT_EQ(::stat(fmt::format("/proc/{}", source.pid()).c_str(), &process), 0);
    EXPECT_EQ(process.st_uid, user->uid);
    EXPECT_NE(process.st_uid, 0U);
  }
  EXPECT_EQ(::getsid(source.pid()), source.pid());

  outgoing->proceed();
  ASSERT_TRUE(wait_until(loop, [&] { return (completed && loaded) || end; }));
  EXPECT_TRUE(wait_until(loop, [&] { return status(*a).state == "postmigrate"; }));
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

// One guest for all ways in which a move ends at the source: its boot takes longer than they do.
TEST_F(RealQemu, ASourceThatWasNotLeftRunsOn) {
  boot_source();
  {
    SCOPED_TRACE("aborted at pre-switchover");
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
    forget_target();
  }
  {
    SCOPED_TRACE("a target that dies");
    start_target();
    start_migration();
    ASSERT_TRUE(wait_until(loop, [&] { return info(*a).dirty_sync_count >= 1; }));
    ASSERT_TRUE(target.kill(SIGKILL));
    ASSERT_TRUE(wait_until(loop, [&] { return end.has_value(); }));
    EXPECT_TRUE(end->running);
    EXPECT_THAT(end->reason, HasSubstr("failed"));
    EXPECT_TRUE(status(*a).running);
    forget_target();
  }
  {
    SCOPED_TRACE("completed, but not released: taken back");
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
}

// The TAP of a vm in a network namespace of its own, the kernel's end at 10.9.0.1. The kernel sends
// nothing into it of its own accord, which QEMU would take for a probe.
struct RealQemuWithTap : RealQemu {
  void boot() {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    tap.emplace(os::Tap::open({.name = "gwt0"}));
    os::Netlink().silence_ipv6("gwt0");
    for (const std::string command :
         {"link set gwt0 up", "address add 10.9.0.1/24 dev gwt0",
          "neighbor add 10.9.0.2 lladdr 52:54:00:00:00:01 nud permanent dev gwt0"}) {
      run_ip(command);
    }
    spec.nics = {{.port = *PortId::parse("a0000000000000000000000000000001"),
                  .name = "eth0",
                  .mac = "52:54:00:00:00:01"}};
    spec.append += " godwit.ip=10.9.0.2/24";
    ASSERT_NO_FATAL_FAILURE(boot_source({tap->fd().number()}));
    talk_to("10.9.0.2:7007");
    ASSERT_TRUE(wait_until(loop, [&] { return send(1), got_echo(1); }));
    send(2);  // after all the first ones: once it is back, the TAP is empty
    ASSERT_TRUE(wait_until(loop, [&] { return got_echo(2); }));
  }
  static void run_ip(const std::string& arguments) {
    os::Command ip{.argv = {"ip"}};
    std::istringstream words(arguments);
    for (std::string word; words >> word;) ip.argv.push_back(word);
    EXPECT_TRUE(os::run(ip)->status.success()) << arguments;
  }
  void talk_to(std::string_view address) {
    udp.reset(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_storage to{};
    const auto length = os::Endpoint::parse(address)->to_sockaddr(to, AF_INET);
    ASSERT_EQ(::connect(udp.number(), reinterpret_cast<sockaddr*>(&to), length), 0);
  }
  void send(std::uint64_t sequence) {
    const auto packet = lab::encode({.client = 1, .sequence = sequence});
    EXPECT_EQ(::send(udp.number(), packet.data(), packet.size(), 0), ssize_t{packet.size()});
  }
  bool got_echo(std::uint64_t sequence) {
    std::array<std::byte, 2048> buffer;
    for (;;) {
      const ssize_t count = ::recv(udp.number(), buffer.data(), buffer.size(), 0);
      if (count <= 0) return false;
      const auto echo = lab::decode_packet(BytesView(buffer).first(std::size_t(count)));
      if (echo && echo->sequence == sequence) return true;
    }
  }
  // Sequences of the probes that are left in the TAP, which QEMU did not take.
  std::vector<std::uint64_t> left_in_tap() {
    std::vector<std::uint64_t> out;
    Bytes frame(os::kMaxFrameBytes);
    while (const std::size_t count = tap->read(frame)) {
      // vnet header, Ethernet, IPv4 without options, UDP
      constexpr std::size_t kHeaders = os::kVnetHeaderBytes + 14 + 20 + 8;
      if (count < kHeaders) continue;
      const auto packet = lab::decode_packet(BytesView(frame).first(count).subspan(kHeaders));
      if (packet) out.push_back(packet->sequence);
    }
    return out;
  }
  void ask(void (*command)(Qmp&, Done)) {
    std::optional<Result<>> done;
    command(*a, [&](Result<> result) { done = std::move(result); });
    ASSERT_TRUE(wait_until(loop, [&] { return done.has_value(); }));
    EXPECT_TRUE(done->has_value());
  }

  std::optional<os::Tap> tap;
  os::Fd udp;
};

// QEMU reads one more frame after it stopped its vCPUs, finds that the vm does not run, keeps the
// frame in a queue of its own and only then stops reading (net/queue.c, qemu_net_queue_send;
// net/tap.c, tap_send). That frame is not in the vm's state: a move that does not send it again
// loses it.
TEST_F(RealQemuWithTap, AStoppedQemuTakesExactlyOneMoreFrame) {
  ASSERT_NO_FATAL_FAILURE(boot());
  tap->refresh_header_size();
  ask(stop);
  for (const std::uint64_t sequence : {100U, 101U, 102U}) send(sequence);
  for (int i = 0; i < 3; ++i) status(*a);  // round trips through QEMU's main loop
  EXPECT_THAT(left_in_tap(), ElementsAre(101, 102));
  ask(cont);
  EXPECT_TRUE(wait_until(loop, [&] { return got_echo(100); }));
}

// The way round it, through a real pair of TAPs as the agent has them.
struct RealQemuWithPair : RealQemuWithTap {
  void boot_pair() {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    pair.emplace(os::TapPair::create({.name = "gwt"}));
    spec.nics = {{.port = *PortId::parse("a0000000000000000000000000000001"),
                  .name = "eth0",
                  .mac = "52:54:00:00:00:01"}};
    spec.append += " godwit.ip=10.9.0.2/24";
    ASSERT_NO_FATAL_FAILURE(boot_source({pair->guest_fd().number()}));
  }
  void write(const Bytes& frame) {
    EXPECT_EQ(pair->agent_side().write(frame), os::FrameDevice::Written::kYes);
    if (!is_plug(frame)) nic.wrote(frame);
  }
  TrappedFrame::Recovered recover(bool stopped_by_itself) {
    write(plug_frame());
    std::optional<std::vector<Bytes>> newest;
    newest_received_after_barrier(*a, nic_device_ids(spec), stopped_by_itself,
                                  [&](std::vector<Bytes> got) { newest = std::move(got); });
    EXPECT_TRUE(wait_until(loop, [&] { return newest.has_value(); }));
    std::vector<Bytes> untaken;
    Bytes buffer(os::kMaxFrameBytes);
    while (const std::size_t count = pair->read_untaken(buffer)) {
      untaken.push_back(to_bytes(BytesView(buffer).first(count)));
    }
    proof = newest.value().front();
    return nic.recover(std::move(untaken), proof);
  }
  static Bytes test_frame(char name) {
    Bytes frame = plug_frame();
    std::fill_n(frame.begin() + os::kVnetHeaderBytes, 6, std::byte{0xff});  // broadcast
    frame[60] = static_cast<std::byte>(name);
    return frame;
  }
  static std::string names(const std::vector<Bytes>& frames) {
    std::string out;
    for (const Bytes& frame : frames) out += static_cast<char>(frame[60]);
    return out;
  }

  std::optional<os::TapPair> pair;
  TrappedFrame nic;
  Bytes proof;  // what the guest got last, by its ring
};

TEST_F(RealQemuWithPair, NoFrameIsLostInAStoppedQemu) {
  ASSERT_NO_FATAL_FAILURE(boot_pair());
  write(test_frame('1'));  // before STOP: the vm has it
  status(*a), status(*a);
  ask(stop);
  for (const char name : {'2', '3', '4'}) write(test_frame(name));
  const auto recovered = recover(false);
  EXPECT_EQ(names(recovered.frames), "234");
  EXPECT_EQ(recovered.trapped, test_frame('2'));
  EXPECT_FALSE(recovered.lost_one);
}

TEST_F(RealQemuWithPair, AStoppedQemuWithoutTrafficTrapsOnlyThePlug) {
  ASSERT_NO_FATAL_FAILURE(boot_pair());
  write(test_frame('1'));
  status(*a), status(*a);
  ask(stop);
  EXPECT_EQ(names(recover(false).frames), "");
}

// A migration that is about to stop its vm, which a vCPU delays.
struct RealQemuStopping : RealQemuWithPair {
  // Until the vm has stopped or is held on its way there.
  void begin_to_stop(HeldVcpu& vcpu) {
    for (bool runs = true; runs;) {
      std::optional<bool> running;
      query_status(*a, [&](const Result<VmStatus>& got) { running = !got || got->running; });
      ASSERT_TRUE(wait_until(loop, [&] {
        if (!running) vcpu.step();  // it may have QEMU's global lock, or be waited for by a round
        return running.has_value();
      }));
      runs = *running;
      if (runs) vcpu.step();
    }
  }
  bool happened(std::string_view event) { return std::ranges::find(events, event) != events.end(); }
  // As the target: takes the stream and says nothing.
  void start_sink() {
    listener = os::Listener::unix_(loop, relay_path(), 0600, [this](auto stream, const auto&) {
      sink = std::move(stream);
      sink->start({.readable =
                       [this] {
                         std::array<std::byte, 65536> chunk;
                         while (sink->read(chunk) > 0) {
                         }
                       },
                   .writable = {},
                   .closed = {}});
    });
    ASSERT_TRUE(grant_to_qemu(relay_path()));
  }

  std::unique_ptr<os::ByteStream> sink;
};

TEST_F(RealQemuStopping, NoFrameIsLostWhileTheVcpusStop) {
  ASSERT_NO_FATAL_FAILURE(boot_pair());
  ASSERT_NO_FATAL_FAILURE(start_sink());
  set_downtime_limit(*a, seconds(1), [](Result<>) {});
  TrappedFrame::Recovered recovered;
  for (int tries = 1;; ++tries) {
    ASSERT_LE(tries, 50) << "the vCPU stood each time before it was held, or nothing was proved";
    events.clear();
    end.reset();
    pre_switchover = false;
    nic = {};
    write(test_frame('1'));
    status(*a), status(*a);
    start_migration();
    ASSERT_TRUE(wait_until(loop, [&] { return happened("source MIGRATION_PASS") || end; }));
    HeldVcpu vcpu(source.pid());
    ASSERT_NO_FATAL_FAILURE(begin_to_stop(vcpu));
    const bool is_between = !happened("source STOP");
    write(test_frame('2'));
    for (int i = 0; i < 3; ++i) status(*a);
    vcpu.let_go();
    ASSERT_TRUE(wait_until(loop, [&] { return pre_switchover || end; }));
    if (is_between) {
      for (const char name : {'3', '4'}) write(test_frame(name));
      recovered = recover(true);
      // After each hundredth frame or so the guest has just given all descriptors out again.
      if (!proof.empty()) break;
    }
    outgoing->abort("once more");
    ASSERT_TRUE(wait_until(loop, [&] { return end.has_value(); }));
  }
  EXPECT_EQ(names(recovered.frames), "234");
  EXPECT_EQ(recovered.trapped, test_frame('3'));
}

// A vm with slots and an agent, whose first NIC has the default route; gwt1 is what is plugged in,
// with a router at 203.0.113.1.
struct RealQemuWithSlots : RealQemuWithTap {
  RealQemuWithSlots() {
    spec.initrd = std::filesystem::absolute(GODWIT_GUEST_IMAGE "/initrd-agent.img");
    spec.append += " godwit.gw=10.9.0.1";
    spec.guest_agent = true;
    spec.nic_slots = kDefaultNicSlots;
  }
  void SetUp() override {
    if (!std::filesystem::exists(spec.initrd)) GTEST_SKIP() << "no qemu-guest-agent for the image";
  }
  void boot_with_uplink() {
    ASSERT_NO_FATAL_FAILURE(boot());
    uplink.emplace(os::Tap::open({.name = "gwt1"}));
    run_ip("link set gwt1 up");
    run_ip("address add 203.0.113.1/24 dev gwt1");
    const auto plugged = plug(uplink_nic);
    ASSERT_TRUE(plugged) << plugged.error().text;
    spec.nics.push_back(uplink_nic);
  }

  template <class T>
  Result<T> await(std::move_only_function<void(Answer<T>)> start) {
    const auto got = std::make_shared<std::optional<Result<T>>>();
    start([got](Result<T> result) { *got = std::move(result); });
    EXPECT_TRUE(wait_until(loop, [&] { return got->has_value(); }));
    return got->value_or(fail("nothing came"));
  }
  Result<> plug(const NicSpec& nic) {
    return await<void>(
        [&](Done done) { plug_nic(*a, nic, uplink->fd().duplicate(), std::move(done)); });
  }
  Result<> unplug(Qmp& qmp) {
    return await<void>([&](Done done) { unplugging.emplace(qmp, uplink_nic, std::move(done)); });
  }
  // One that answers: the guest starts it late.
  std::unique_ptr<GuestAgent> agent_of(const char* who) {
    for (int tries = 0; tries < 20; ++tries) {
      auto agent =
          std::make_unique<GuestAgent>(loop, os::unix_connect(loop, paths(who).guest_agent()));
      const auto pong = await<nlohmann::json>([&](Answer<nlohmann::json> answer) {
        agent->execute("guest-ping", nullptr, std::move(answer));
      });
      if (pong) return agent;
    }
    throw SetupError("the guest's agent never answers");
  }
  // What a shell in the guest says.
  std::string shell(GuestAgent& agent, const std::string& command) {
    const auto output = await<GuestOutput>([&](Answer<GuestOutput> answer) {
      agent.run("/bin/sh", {"-c", command}, seconds(20), std::move(answer));
    });
    return output ? output->out + output->err : output.error().text;
  }

  const NicSpec uplink_nic{.port = *PortId::parse("b0000000000000000000000000000002"),
                           .name = "uplink",
                           .mac = "52:54:00:00:00:05",
                           .slot = 1,
                           .network = NicNetwork{.addresses = {*parse_ip_prefix("203.0.113.7/24")},
                                                 .gateway4 = *parse_ip("203.0.113.1"),
                                                 .resolvers = {*parse_ip("203.0.113.53")},
                                                 .mtu = 1400}};
  std::optional<os::Tap> uplink;
};

TEST_F(RealQemuWithSlots, WhatQemuRefusesIsTakenBack) {
  source = launch(spec, {.paths = paths("a"), .tap_fds = {}}).child;
  a = connect(paths("a"), "source");
  ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
  uplink.emplace(os::Tap::open({.name = "gwt1"}));
  NicSpec nic = uplink_nic;
  nic.slot = 3;
  // The second time too it is the slot that is missing, not the netdev that is there already.
  for (int i = 0; i < 2; ++i) {
    const auto refused = plug(nic);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().text, HasSubstr("Bus 'nic-slot3' not found"));
  }
  EXPECT_TRUE(plug(uplink_nic));
  EXPECT_FALSE(plug(uplink_nic));
}

TEST_F(RealQemuWithSlots, APluggedNicBecomesTheDefaultAndGoesAgain) {
  ASSERT_NO_FATAL_FAILURE(boot_with_uplink());
  const auto agent = agent_of("a");
  shell(*agent, "mkdir /etc; echo nameserver 10.9.0.1 > /etc/resolv.conf");
  const std::string before = shell(*agent, "ip route; ip rule; cat /etc/resolv.conf");
  const auto configured = await<GuestNetworkReport>(
      [&](auto answer) { configure(*agent, uplink_nic, std::move(answer)); });
  ASSERT_TRUE(configured) << configured.error().text;
  EXPECT_EQ(configured->interface, "eth1");
  EXPECT_TRUE(configured->checked_duplicates4);
  EXPECT_EQ(configured->gateway4_answers, true);
  talk_to("203.0.113.7:7007");
  EXPECT_TRUE(wait_until(loop, [&] { return send(3), got_echo(3); }));
  EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1"), HasSubstr("dev eth0"));

  const auto flipped = await<GuestNetworkReport>(
      [&](auto answer) { make_default(*agent, uplink_nic, false, std::move(answer)); });
  ASSERT_TRUE(flipped) << flipped.error().text;
  EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1"), HasSubstr("dev eth1"));
  EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1 from 10.9.0.2"), HasSubstr("dev eth0"));
  EXPECT_EQ(shell(*agent, "cat /etc/resolv.conf"), "nameserver 203.0.113.53\n");

  // At home the first is the way again; the other's addresses keep theirs, and it can be it again.
  for (int i = 0; i < 2; ++i) {
    const auto home = await<GuestNetworkReport>(
        [&](auto answer) { make_default(*agent, spec.nics[0], false, std::move(answer)); });
    ASSERT_TRUE(home) << home.error().text;
    EXPECT_EQ(home->interface, "eth0");
    EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1"), HasSubstr("dev eth0"));
    EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1 from 203.0.113.7"), HasSubstr("dev eth1"));
    EXPECT_EQ(shell(*agent, "cat /etc/resolv.conf"), "nameserver 10.9.0.1\n");
  }
  ASSERT_TRUE(await<GuestNetworkReport>(
      [&](auto answer) { make_default(*agent, uplink_nic, false, std::move(answer)); }));
  EXPECT_THAT(shell(*agent, "ip route get 192.0.2.1"), HasSubstr("dev eth1"));

  const auto back = await<GuestNetworkReport>(
      [&](auto answer) { deconfigure(*agent, uplink_nic, std::move(answer)); });
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(shell(*agent, "ip route; ip rule; cat /etc/resolv.conf"), before);
  const auto unplugged = unplug(*a);
  EXPECT_TRUE(unplugged) << unplugged.error().text;
  EXPECT_EQ(shell(*agent, "cat /sys/class/net/*/address"),
            "52:54:00:00:00:01\n00:00:00:00:00:00\n");
  EXPECT_TRUE(unplug(*a));  // out already
  EXPECT_TRUE(plug(uplink_nic));
}

TEST_F(RealQemuWithSlots, AnAddressInUseIsNotTaken) {
  ASSERT_NO_FATAL_FAILURE(boot_with_uplink());
  run_ip("address add 203.0.113.7/24 dev gwt1");
  const auto agent = agent_of("a");
  const std::string before = shell(*agent, "ip route; ip rule");
  const auto configured = await<GuestNetworkReport>(
      [&](auto answer) { configure(*agent, uplink_nic, std::move(answer)); });
  ASSERT_FALSE(configured);
  EXPECT_THAT(configured.error().text, HasSubstr("in use by another machine"));
  EXPECT_EQ(shell(*agent, "ip route; ip rule"), before);
}

}  // namespace
}  // namespace godwit::qemu

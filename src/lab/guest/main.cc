// godwit-guest: what runs inside the lab's vm, or as an ordinary process in tests.
//
//   TCP 7007  echo                    UDP 7007  lab/guest/protocol.hh: account, echo, stream
//   TCP 7008  control, a line each:   "report [CLIENT [FROM LIMIT]]", "check", "dirty RATE",
//                                     "forget" how long writes took
//   MPTCP 7009  echo, where the kernel has it
//
// One thread: every millisecond of the vm's time it takes what came, counts, sends what is due and
// dirties memory. Another one writes to a disk, if there is one to be written to.
#include <netinet/in.h>
#include <poll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <sstream>

#include "lab/guest/dirty_disk.hh"
#include "lab/guest/dirty_memory.hh"
#include "lab/guest/netstat.hh"
#include "lab/guest/sockets.hh"
#include "lab/guest/tcp_service.hh"
#include "lab/guest/udp_service.hh"

namespace godwit::lab {
namespace {

// Behind schedule at most so many ticks are made up for at once; the rest is skipped and counted.
constexpr std::uint64_t kMostTicksAtOnce = 20;

struct Options {
  std::uint16_t port = kEchoPort;
  std::uint16_t control_port = kControlPort;
  std::uint16_t mptcp_port = kMptcpPort;
  std::uint64_t dirty_bytes_per_second = 0;
  std::uint64_t working_set_bytes = 16ULL << 20;
  std::string disk;  // to be written to; empty: none
  std::uint64_t disk_bytes_per_second = 0;
};

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kRates[] = {
    {"bit", 1.0 / 8}, {"kbit", 1e3 / 8}, {"mbit", 1e6 / 8}, {"gbit", 1e9 / 8}};
constexpr Unit kSizes[] = {{"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};

// "5mbit" -> 625,000 bytes per second; "64MiB" -> bytes.
template <std::size_t N>
std::optional<std::uint64_t> parse(std::string_view text, const Unit (&units)[N]) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || number < 0 || number > 1e9) return std::nullopt;
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  for (const auto& [name, factor] : units) {
    if (unit == name) return static_cast<std::uint64_t>(number * factor);
  }
  return std::nullopt;
}

bool apply(Options& options, std::string_view name, std::string_view value) {
  const auto take = [](auto& to, std::optional<std::uint64_t> from) {
    if (from) to = static_cast<std::remove_reference_t<decltype(to)>>(*from);
    return from.has_value();
  };
  const auto port = [&value]() -> std::optional<std::uint64_t> {
    std::uint16_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size()) return std::nullopt;
    return number;
  };
  if (name == "--port") return take(options.port, port());
  if (name == "--control-port") return take(options.control_port, port());
  if (name == "--mptcp-port") return take(options.mptcp_port, port());
  if (name == "--dirty") return take(options.dirty_bytes_per_second, parse(value, kRates));
  if (name == "--disk") return options.disk = value, true;
  if (name == "--disk-rate") return take(options.disk_bytes_per_second, parse(value, kRates));
  if (name == "--working-set") return take(options.working_set_bytes, parse(value, kSizes));
  return false;
}

class Guest final {
 public:
  explicit Guest(const Options& options)
      : udp_(options.port),
        echo_(options.port, echo_handler),
        control_(options.control_port, line_handler([this](auto& line) { return answer(line); })),
        mptcp_echo_(has_mptcp() ? std::make_unique<TcpService>(options.mptcp_port, echo_handler,
                                                               IPPROTO_MPTCP)
                                : nullptr),
        memory_(options.working_set_bytes, options.dirty_bytes_per_second),
        disk_(options.disk_bytes_per_second == 0
                  ? nullptr
                  : std::make_unique<DirtyDisk>(options.disk, options.disk_bytes_per_second)),
        timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
    const itimerspec period{.it_interval = {0, 1'000'000}, .it_value = {0, 1'000'000}};
    if (timer_ < 0 || ::timerfd_settime(timer_, 0, &period, nullptr) != 0) exit_with("timerfd");
  }

  [[noreturn]] void run() {
    for (;;) {
      std::vector<pollfd> polls{{timer_, POLLIN, 0}};
      echo_.add_to(polls);
      const std::size_t control_at = polls.size();
      control_.add_to(polls);
      const std::size_t mptcp_at = polls.size();
      if (mptcp_echo_) mptcp_echo_->add_to(polls);
      ::poll(polls.data(), polls.size(), -1);
      if (polls[0].revents != 0) tick();
      if (mptcp_echo_) mptcp_echo_->handle(polls.data() + mptcp_at);
      control_.handle(polls.data() + control_at);
      echo_.handle(polls.data() + 1);
    }
  }

 private:
  void tick() {
    std::uint64_t due = 0;
    if (::read(timer_, &due, sizeof due) != sizeof due) return;
    const std::uint64_t now_due = std::min(due, kMostTicksAtOnce);
    skipped_ticks_ += due - now_due;
    udp_.receive();
    for (std::uint64_t i = 0; i < now_due; ++i) udp_.tick();
    udp_.flush();
    memory_.tick(std::chrono::steady_clock::now().time_since_epoch());
  }

  std::string answer(const std::string& line) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "check") memory_.check_all();
    if (verb == "check" && disk_) disk_->check_all();
    if (verb == "forget" && disk_) disk_->forget_times();
    if (verb == "dirty") {
      std::string rate;
      words >> rate;
      const auto parsed = parse(rate, kRates);
      if (!parsed) return R"({"error":"dirty RATE, e.g. 5mbit"})";
      memory_.set_rate(*parsed);
    } else if (verb != "report" && verb != "check" && verb != "forget") {
      return R"({"error":"commands: report [CLIENT [FROM LIMIT]], check, forget, dirty RATE"})";
    }
    std::uint64_t client = 0;
    std::uint64_t from = 0;
    std::uint64_t limit = 0;
    words >> client >> from >> limit;
    udp_.catch_up();
    return report(client, from, limit);
  }

  std::string report(std::uint64_t client, std::uint64_t from, std::uint64_t limit) {
    const TcpCounters tcp = read_tcp_counters();
    const UdpDrops udp = read_udp_drops();
    std::ostringstream out;
    const auto wall = std::chrono::system_clock::now().time_since_epoch();
    out << R"({"counter":)" << udp_.counter().value()  //
        << R"(,"realtime_ns":)" << std::chrono::nanoseconds(wall).count()
        << R"(,"counter_damaged":)" << udp_.counter().damaged()  //
        << R"(,"skipped_ticks":)" << skipped_ticks_              //
        << R"(,"dirty":{"bytes":)" << memory_.bytes()            //
        << R"(,"pages_written":)" << memory_.pages_written()     //
        << R"(,"damaged":)" << memory_.damaged_pages()           //
        << R"(},"disk":{"written":)" << (disk_ ? disk_->written() : 0) << R"(,"damaged":)"
        << (disk_ ? disk_->damaged() : 0) << R"(,"slowest_us":)"
        << (disk_ ? disk_->percentile_us(1) : 0) << R"(,"p50_us":)"
        << (disk_ ? disk_->percentile_us(0.5) : 0) << R"(,"p99_us":)"
        << (disk_ ? disk_->percentile_us(0.99) : 0) << R"(},"tcp":{"timeouts":)" << tcp.timeouts  //
        << R"(,"retransmissions":)" << tcp.retransmissions                                        //
        << R"(,"resets_received":)" << tcp.resets_received                                        //
        << R"(},"udp_drops":{"received":)" << udp.received                                        //
        << R"(,"sent":)" << udp.sent                                                              //
        << R"(},"echo":{"accepted":)" << echo_.accepted()                                         //
        << R"(,"bytes":)" << echo_.bytes()                                                        //
        << R"(},"client":)" << udp_.report(client, from, limit) << "}";
    return out.str();
  }

  UdpService udp_;
  TcpService echo_;
  TcpService control_;
  std::unique_ptr<TcpService> mptcp_echo_;
  DirtyMemory memory_;
  std::unique_ptr<DirtyDisk> disk_;
  int timer_;
  std::uint64_t skipped_ticks_ = 0;
};

int guest_main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  Options options;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc || !apply(options, argv[i], argv[i + 1])) {
      std::fprintf(
          stderr,
          "usage: godwit-guest [--port N] [--control-port N] [--mptcp-port N] [--dirty 5mbit]"
          " [--working-set 64MiB] [--disk /dev/vda --disk-rate 5mbit]\n");
      return 2;
    }
  }
  Guest guest(options);
  std::puts("godwit-guest ready");
  std::fflush(stdout);
  guest.run();
}

}  // namespace
}  // namespace godwit::lab

int main(int argc, char** argv) { return godwit::lab::guest_main(argc, argv); }

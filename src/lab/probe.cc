// Control first: the guest answers a "report" -> packets and connections start -> all of them work:
// "ready" -> windows as marked on stdin -> stop, settle, last report -> "summary".
#include "lab/probe.hh"

#include <sys/epoll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "lab/probe_traffic.hh"
#include "os/random.hh"

namespace godwit::lab {
namespace {

using nlohmann::json;

constexpr Nanoseconds kControlRetry = milliseconds(200);
constexpr Nanoseconds kReportLimit = seconds(10);
constexpr Nanoseconds kReadyPoll = milliseconds(20);
constexpr std::size_t kMaxConnectionsOfProbe = 32;
constexpr std::size_t kMaxWindows = 1000;
constexpr std::size_t kMaxStdinLine = 512;

struct Options {
  os::Endpoint packets;
  os::Endpoint control;
  std::uint16_t per_second = 1000;
  std::size_t connections = 4;
  Pace pace;
  std::optional<Nanoseconds> run_for;
  Nanoseconds settle = seconds(2);
  Nanoseconds wait = seconds(60);
};

void print(const json& object) { std::cout << object.dump() << std::endl; }

class Probe final {
 public:
  explicit Probe(Options options) : options_(std::move(options)), record_(options_.per_second) {}

  int run() {
    const auto signals = loop_.on_signals({SIGINT, SIGTERM}, [this](int) { stop(); });
    give_up_ = loop_.after(options_.wait, [this] {
      end_with("the guest " + options_.packets.text() +
               " does not answer: is the vm up and wired?");
    });
    reach_control();
    watch_stdin();
    loop_.run();
    return status_;
  }

 private:
  // One marked stretch of time and what was counted at its ends.
  struct Marked {
    Window window;
    TcpCounters ours_before;
    std::optional<GuestReport> guest_before;
    bool ended = false;
    os::Loop::Timer settle;
    json figures;
  };

  void reach_control() {
    control_.emplace(loop_, options_.control);
    control_->ask("report", [this](std::optional<GuestReport> report) {
      if (report) {
        loop_.post([this] { start_traffic(); });
      } else {
        retry_ = loop_.after(kControlRetry, [this] { reach_control(); });
      }
    });
  }

  void start_traffic() {
    packets_.emplace(loop_, options_.packets, options_.per_second, client_, record_);
    for (std::size_t i = 0; i < options_.connections; ++i) {
      connections_.push_back(
          std::make_unique<ProbeConnection>(loop_, options_.packets, i, options_.pace, record_));
    }
    await_ready();
  }

  void await_ready() {
    const bool up = record_.echoes().received() > 0 && record_.stream().received() > 0 &&
                    std::ranges::all_of(connections_, [](const auto& c) { return c->is_up(); });
    if (!up) {
      retry_ = loop_.after(kReadyPoll, [this] { await_ready(); });
      return;
    }
    give_up_.reset();
    begin("total");
    print({{"event", "ready"}, {"at_unix_ns", unix_now().count()}});
    if (options_.run_for) run_for_ = loop_.after(*options_.run_for, [this] { stop(); });
  }

  void begin(const std::string& name) {
    Marked& marked = windows_[name];
    marked.window = {.name = name, .start = unix_now(), .end = {}};
    marked.ours_before = read_tcp_counters();
    control_->ask("report", [this, name](std::optional<GuestReport> report) {
      windows_[name].guest_before = std::move(report);
    });
  }

  void finish(const std::string& name) {
    Marked& marked = windows_[name];
    marked.ended = true;
    marked.window.end = unix_now();
    // What was sent in the window gets the settle time to arrive.
    marked.settle = loop_.after(options_.settle, [this, name] { ask_about(name); });
  }

  void ask_about(std::string name) {  // by value: what is called with it ends with its timer
    Marked& marked = windows_[name];
    const Window& window = marked.window;
    control_->ask(fmt::format("report {} {} {}", client_, record_.sequence_at(window.start),
                              record_.sequence_at(window.end)),
                  [this, name](std::optional<GuestReport> report) { conclude(name, report); });
    // Of a guest that nobody reaches any more there is what the probe saw itself.
    marked.settle = loop_.after(kReportLimit, [this, name] { conclude(name, std::nullopt); });
  }

  void conclude(std::string name, const std::optional<GuestReport>& guest) {
    Marked& marked = windows_[name];
    if (!marked.figures.is_null()) return;
    marked.settle.reset();
    const std::size_t silent = connections_silent_since(marked.window.end);
    marked.figures = record_.figures(marked.window, idle_before(marked.window), guest);
    const TcpCounters ours = read_tcp_counters();
    json& tcp = marked.figures["tcp"];
    tcp["connections"] = connections_.size();
    tcp["silent"] = silent;
    tcp["rto_client"] = ours.timeouts - marked.ours_before.timeouts;
    tcp["retransmissions_client"] = ours.retransmissions - marked.ours_before.retransmissions;
    tcp["rto_vm"] = nullptr;
    tcp["retransmissions_vm"] = nullptr;
    if (guest && marked.guest_before) {
      tcp["rto_vm"] = guest->tcp.timeouts - marked.guest_before->tcp.timeouts;
      tcp["retransmissions_vm"] =
          guest->tcp.retransmissions - marked.guest_before->tcp.retransmissions;
    }
    if (name == "total") return summarise();
    json line = marked.figures;
    line["event"] = "window";
    print(line);
    if (stopping_) finish_total_when_last();
  }

  // Those that were closed, or brought nothing from then until now though it was due; what these
  // wait for counts as a stall so far.
  std::size_t connections_silent_since(UnixTime at) {
    std::size_t silent = 0;
    for (const auto& connection : connections_) {
      const auto since = connection->waiting_since();
      const bool waits = since && *since < at;
      if (waits) record_.tcp_progress(*since, unix_now());
      if (waits || connection->is_closed()) ++silent;
    }
    return silent;
  }

  // An equally long stretch just before the window, if nothing was going on in it.
  std::optional<Window> idle_before(const Window& window) const {
    const Window idle{.name = "idle", .start = window.start - window.length(), .end = window.start};
    for (const auto& [name, other] : windows_) {
      if (name == "total") {
        if (idle.start < other.window.start) return std::nullopt;
      } else if (other.window.start < idle.end && other.window.end > idle.start) {
        return std::nullopt;
      }
    }
    return idle;
  }

  void stop() {
    if (std::exchange(stopping_, true)) return;
    if (!windows_.contains("total")) return end_with("stopped before the guest was reached");
    run_for_.reset();
    for (auto& [name, marked] : windows_) {
      if (name != "total" && !marked.ended) finish(name);
    }
    windows_["total"].window.end = unix_now();
    packets_->stop();
    for (const auto& connection : connections_) connection->stop();
    finish_total_when_last();
  }

  void finish_total_when_last() {
    for (const auto& [name, marked] : windows_) {
      if (name != "total" && marked.figures.is_null()) return;
    }
    Marked& total = windows_["total"];
    if (std::exchange(total.ended, true)) return;
    total.settle = loop_.after(options_.settle, [this] { ask_about("total"); });
  }

  void summarise() {
    json windows = json::array();
    for (const auto& [name, marked] : windows_) {
      if (name != "total") windows.push_back(marked.figures);
    }
    print({{"event", "summary"}, {"windows", windows}, {"total", windows_["total"].figures}});
    loop_.stop();
  }

  void end_with(const std::string& error) {
    print({{"event", "error"}, {"error", error}});
    status_ = 1;
    loop_.stop();
  }

  // A regular file or /dev/null as stdin cannot be watched (epoll(7), EPERM): then only --for and
  // signals end the run.
  void watch_stdin() {
    os::Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event nothing{};
    if (::epoll_ctl(epoll.number(), EPOLL_CTL_ADD, STDIN_FILENO, &nothing) != 0) return;
    stdin_ = os::Fd(::dup(STDIN_FILENO));
    stdin_watch_ = loop_.watch(stdin_, EPOLLIN, [this](std::uint32_t) { read_stdin(); });
  }

  void read_stdin() {
    std::array<char, 512> chunk;
    const ssize_t count = ::read(stdin_.number(), chunk.data(), chunk.size());
    if (count <= 0) {
      stdin_watch_.reset();
      return stop();
    }
    input_.append(chunk.data(), static_cast<std::size_t>(count));
    for (std::size_t end = 0; (end = input_.find('\n')) != std::string::npos;) {
      obey(input_.substr(0, end));
      input_.erase(0, end + 1);
    }
    if (input_.size() > kMaxStdinLine) input_.clear();
  }

  void obey(const std::string& line) {
    std::istringstream words(line);
    std::string verb, name, edge;
    words >> verb >> name >> edge;
    if (verb == "stop") return stop();
    const auto found = windows_.find(name);
    const bool known = found != windows_.end();
    const bool ready = windows_.contains("total") && !stopping_;
    if (verb == "mark" && name != "total" && ready && edge == "start" && !known &&
        windows_.size() < kMaxWindows) {
      return begin(name);
    }
    if (verb == "mark" && name != "total" && ready && edge == "end" && known &&
        !found->second.ended) {
      return finish(name);
    }
    print({{"event", "error"}, {"error", "not understood now: " + line}});
  }

  Options options_;
  os::Loop loop_;
  std::uint64_t client_ = random_number();
  ProbeRecord record_;
  std::optional<ProbeControl> control_;
  std::optional<ProbePackets> packets_;
  std::vector<std::unique_ptr<ProbeConnection>> connections_;
  std::map<std::string, Marked> windows_;
  os::Loop::Timer give_up_, retry_, run_for_;
  os::Fd stdin_;
  os::Loop::Watch stdin_watch_;
  std::string input_;
  bool stopping_ = false;
  int status_ = 0;

  static std::uint64_t random_number() {
    std::array<std::byte, 8> bytes{};
    os::fill_random(bytes);
    return from_big_endian<std::uint64_t>(bytes.data());
  }
};

Nanoseconds duration_of(const std::string& text) {
  const auto duration = parse_duration(text);
  if (!duration) throw CLI::ValidationError(duration.error().text);
  return *duration;
}

}  // namespace

int probe_main(int argc, const char* const* argv) try {
  CLI::App app("What a client of the lab's vm sees, as JSON lines", "godwit lab probe");
  Options options;
  std::string address, run_for, tcp_every = "10ms", settle = "2s", wait = "60s";
  std::uint16_t port = kEchoPort, control_port = kControlPort;
  app.add_option("address", address, "The vm's address")->required();
  app.add_option("--for", run_for, "How long, e.g. 30s; else until stop, SIGINT or end of stdin");
  app.add_option("--rate", options.per_second, "Packets per second each way")
      ->check(CLI::Range(1, int{kMaxPacketsPerSecond}));
  app.add_option("--connections", options.connections, "Long-lived TCP connections")
      ->check(CLI::Range(std::size_t{0}, kMaxConnectionsOfProbe));
  app.add_option("--tcp-every", tcp_every, "Each connection writes so often");
  app.add_option("--tcp-bytes", options.pace.bytes, "Bytes that it writes then, and wants back")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--settle", settle, "What was sent gets so long to arrive");
  app.add_option("--wait", wait, "How long to wait for the guest");
  app.add_option("--port", port, "The guest's echo port");
  app.add_option("--control-port", control_port, "The guest's control port");
  try {
    app.parse(argc, argv);
    if (!run_for.empty()) options.run_for = duration_of(run_for);
    options.settle = duration_of(settle);
    options.pace.every = std::max<Nanoseconds>(duration_of(tcp_every), milliseconds(1));
    options.wait = duration_of(wait);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto packets = os::Endpoint::parse(address, port);
  if (!packets) fail_setup("{}", packets.error().text);
  options.packets = options.control = *packets;
  options.control.port = control_port;
  return Probe(std::move(options)).run();
} catch (const SetupError& error) {
  print({{"event", "error"}, {"error", error.what()}});
  return 1;
}

}  // namespace godwit::lab

#pragma once
// The WAN emulator: moves frames from TAP to TAP through the Directions of each link, in one
// process and one thread per lab. The core (lab/direction.hh) decides; this reads, waits and
// writes.
//
// It wakes at the earliest release time (epoll with nanoseconds, no timer slack, SCHED_RR where
// that is allowed), but at most once per kGather: a wake-up per frame and direction would take a
// whole core at 400 Mbit/s, and with it the time of the hosts it joins. How late each frame left is
// recorded and shown: a lab that cannot keep its delays says so.
//
// What the two routers say about the link itself (ARP, ND, MLD) crosses at once, unharmed and
// uncounted, even while the link is cut: what is emulated, a leased line or a tunnel, has none of
// it. Were it lost, a cut would make the routers answer "host unreachable" where a real one is
// silent, and last a second longer than it should.
#include <array>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "lab/config.hh"
#include "lab/delay_error.hh"
#include "lab/direction.hh"
#include "lab/too_big.hh"
#include "os/fd.hh"
#include "os/loop.hh"

namespace godwit::lab {

class Wan final {
 public:
  // taps[i] are the two ends of lab.links[i] (lab/wiring.hh), non-blocking.
  Wan(os::Loop& loop, const LabConfig& lab, std::vector<std::array<os::Fd, 2>> taps);

  // {"do": "stats"} | {"do": "cut", "link": L, "for_ms"?: N} | {"do": "heal", "link": L}
  // | {"do": "set", "link": L, "toward"?: SITE, "settings": {"rate": "200mbit", ...}}
  Result<nlohmann::json> handle(const nlohmann::json& request);
  // For `stats`: how this process is scheduled.
  void set_scheduling(std::string scheduling) { scheduling_ = std::move(scheduling); }

 private:
  struct End {
    os::Fd tap;
    Direction out;              // what leaves here for the other end
    std::uint64_t refused = 0;  // frames this TAP would not take
    os::Loop::Watch watch;
  };
  struct Span {
    Link link;
    std::array<std::unique_ptr<End>, 2> ends;
    // Of the router at the other end, for ICMP answers in its name.
    std::array<Ipv4Bytes, 2> far4{};
    std::array<Ipv6Bytes, 2> far6{};
    os::Loop::Timer heal_timer;
    std::optional<Instant> heals_at;
    std::vector<os::Loop::Timer> script;
  };

  void readable(std::size_t link, std::size_t end);
  void watch_all();
  void accept(std::size_t link, std::size_t end, BytesView frame);
  static void write_to(End& end, BytesView frame);
  void release_due();
  bool release_from(Span& span, std::size_t end);
  void arm();
  void cut(Span& span, std::optional<Nanoseconds> duration);
  void heal(Span& span);
  Result<Span*> find(const nlohmann::json& request);
  Result<> set(Span& span, const nlohmann::json& request);
  nlohmann::json stats() const;
  nlohmann::json stats_of(const Span& span, std::size_t end) const;

  os::Loop& loop_;
  std::vector<Span> spans_;
  DelayError delay_error_;
  std::string scheduling_ = "normal";
  os::Loop::Timer timer_, read_timer_;
  std::optional<Instant> armed_;
  Instant released_at_{};
  Bytes buffer_;
};

// The process: `lab wan-emulator STATE_DIRECTORY`, TAPs from descriptor kFirstTapFd on in pairs.
constexpr int kFirstTapFd = 10;
int run_wan_emulator(const std::string& state_directory);

}  // namespace godwit::lab

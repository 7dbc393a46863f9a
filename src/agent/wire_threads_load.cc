// How the work of wires is divided among their threads.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <numeric>

#include "agent/wire_threads.hh"
#include "base/units.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

// Long enough to see a burst end, short enough for whoever waits in a queue.
constexpr Nanoseconds kLook = milliseconds(500);
// What ports carry is asked for only if a thread has that much to do, and for what has gone now
// and then: hosts may have thousands.
constexpr double kBusy = 0.5;
constexpr std::uint64_t kLooksPerCount = 60;
// A small frame costs as much as so many bytes of a large one.
constexpr std::uint64_t kFrameBytes = 1500;

// For tests: with GODWIT_WIRE_STORM=MS in the agent's environment ports and components go to and
// fro between threads that often, by chance, whatever they carry.
Nanoseconds storm_interval() {
  const char* text = std::getenv("GODWIT_WIRE_STORM");
  return milliseconds(text == nullptr ? 0 : std::atoi(text));
}

std::uint64_t random_below(std::uint64_t bound) {
  std::array<std::byte, 8> bytes{};
  os::fill_random(bytes);
  return from_big_endian<std::uint64_t>(bytes.data()) % bound;
}

// Sets that grow together.
class Islands {
 public:
  explicit Islands(std::size_t count) : of_(count) { std::iota(of_.begin(), of_.end(), 0U); }
  std::size_t find(std::size_t at) {
    while (of_[at] != at) at = of_[at] = of_[of_[at]];
    return at;
  }
  void join(std::size_t a, std::size_t b) { of_[find(a)] = find(b); }

 private:
  std::vector<std::size_t> of_;
};

}  // namespace

void WireThreads::watch_load() {
  const bool is_storm = storm_interval() > Nanoseconds{};
  timer_ = control_.after(is_storm ? storm_interval() : kLook, [this, is_storm] {
    if (is_storm) storm();
    std::vector<Nanoseconds> used;
    for (const auto& thread : threads_) used.push_back(thread->working_time());
    const Instant now = control_.now();
    const std::chrono::duration<double> passed = now - std::exchange(looked_, now);
    std::vector<double> shares;
    for (std::size_t i = 0; i < used.size() && !used_.empty(); ++i) {
      shares.push_back(std::chrono::duration<double>(used[i] - used_[i]) / passed);
    }
    used_ = used;
    const bool is_busy = std::ranges::any_of(shares, [](double share) { return share >= kBusy; });
    if (!is_storm && (is_busy || ++looks_ % kLooksPerCount == 0)) {
      stats([this, shares, at = map_.additions(), alive = std::weak_ptr(alive_)](const Stats& all) {
        if (alive.expired()) return;
        if (!shares.empty() && old_peers_.empty()) balance(all, shares);
        std::set<PortId> present;
        for (const auto& port : all.ports) present.insert(port.id.port);
        map_.prune(present, at);
        std::erase_if(carried_, [&](const auto& each) { return !map_.of(each.first); });
      });
    }
    watch_load();
  });
}

void WireThreads::balance(const Stats& all, const std::vector<double>& busy) {
  const auto now = loads(all);
  if (const auto next = next_shift(busy, now)) shift(*next, now);
}

// Since this was asked last.
std::vector<WireLoad> WireThreads::loads(const Stats& all) {
  std::map<PortId, double> work;
  for (const auto& wire : all.wires) {
    const std::uint64_t carried =
        (wire.tx_frames + wire.rx_frames) * kFrameBytes + wire.tx_bytes + wire.rx_bytes;
    const std::uint64_t before = std::exchange(carried_[wire.local], carried);
    if (carried > before) work[wire.local] += static_cast<double>(carried - before);
  }
  std::vector<WireLoad> loads;
  std::map<PortId, std::size_t> load_of;
  for (const PortId& port : map_.ports()) {
    if (load_of.contains(port)) continue;
    WireLoad load{.ports = map_.unit_of(port), .thread = shard_of(port)};
    for (const PortId& each : load.ports) {
      load_of[each] = loads.size();
      if (const auto found = work.find(each); found != work.end()) load.work += found->second;
    }
    loads.push_back(std::move(load));
  }
  Islands islands(loads.size());
  for (const auto& [id, home] : homes_) {
    std::optional<std::size_t> first;
    for (const auto& [index, port] : home.ports) {
      const auto load = load_of.find(port);
      if (load == load_of.end()) continue;
      if (first) islands.join(*first, load->second);
      first = load->second;
    }
  }
  for (std::size_t i = 0; i < loads.size(); ++i) loads[i].island = islands.find(i);
  return loads;
}

void WireThreads::shift(const WireShift& shift, const std::vector<WireLoad>& loads) {
  Relocation relocation{.ports = {}, .from = shift.from, .to = shift.to};
  std::set<ComponentId> components;
  for (const std::size_t load : shift.loads) {
    for (const PortId& port : loads[load].ports) {
      relocation.ports.push_back(port);
      const auto component = component_of_.find(port);
      if (shift.is_island && component != component_of_.end() &&
          homes_.at(component->second).thread == shift.from) {
        components.insert(component->second);
      }
    }
  }
  spdlog::debug("{} ports and {} components go from wire thread {} to {}", relocation.ports.size(),
                components.size(), shift.from, shift.to);
  relocate(relocation, {components.begin(), components.end()});
}

void WireThreads::storm() {
  const auto ports = map_.ports();
  if (ports.empty() || !old_peers_.empty()) return;
  const auto to = static_cast<std::uint16_t>(random_below(size()));
  const PortId port = ports[random_below(ports.size())];
  if (const auto from = shard_of(port); from != to) {
    relocate({.ports = map_.unit_of(port), .from = from, .to = to}, {});
  }
  if (homes_.empty()) return;
  const auto home =
      std::next(homes_.begin(), static_cast<std::ptrdiff_t>(random_below(homes_.size())));
  if (const auto from = home->second.thread; from != to) {
    relocate({.ports = {}, .from = from, .to = to}, {home->first});
  }
}

}  // namespace godwit::agent

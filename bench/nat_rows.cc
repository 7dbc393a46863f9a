// Measures of the strategy nat's rules, a JSON row a line, for bench/nat.py:
//
//   plan, install   1,000 displaced guests on 8 devices, each a network namespace
//   scale           100,000 hosts, 1,000 of a hundred thousand guests displaced
//   through         what a device's rewriting costs a packet, against the same way without
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "base/units.hh"
#include "os/address_rewriting.hh"
#include "os/netlink.hh"
#include "round_trip.hh"
#include "translate/move_tables.hh"

namespace godwit {
namespace {

using translate::AddressMove;
using translate::Detours;
using translate::DeviceIndex;
using translate::Fabric;
using translate::GuestMove;
using translate::Phase;
using translate::Rule;
using translate::RuleKind;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kGuests = 1000;

void row(const std::string& name, const std::string& system, const std::string& metric,
         double value, const std::string& unit) {
  std::puts(nlohmann::json{{"bench", "nat"},
                           {"case", name},
                           {"system", system},
                           {"metric", metric},
                           {"value", value},
                           {"unit", unit}}
                .dump()
                .c_str());
  std::fflush(stdout);
}

double ms_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

// ---- fabrics ----

struct Shape {
  unsigned cores, pods, aggregations, edges, hosts;  // the latter three of a pod, and of an edge
};

// Edge n has 10.0.0.0/8's nth /21: 2,048 addresses, of which the last 1,024 are locators.
IpPrefix rack(std::size_t n, unsigned length) {
  const auto base = 0x0a000000U + (static_cast<std::uint32_t>(n) << 11);
  return {Ip::of4(length == 21 ? base : base + 1024), static_cast<std::uint8_t>(length)};
}

Fabric clos(const Shape& shape) {
  Fabric fabric{.name = "clos", .tiers = {"host", "edge", "aggregation", "core"}};
  const auto add = [&](std::string name, std::size_t tier) {
    fabric.devices.push_back({.name = std::move(name), .agent = {}, .tier = tier});
    return fabric.devices.size() - 1;
  };
  const auto join = [&](DeviceIndex a, DeviceIndex b) {
    fabric.devices[a].neighbours.push_back(b);
    fabric.devices[b].neighbours.push_back(a);
  };
  std::vector<DeviceIndex> cores;
  for (unsigned i = 0; i < shape.cores; ++i) cores.push_back(add(fmt::format("core{}", i), 3));
  fabric.devices[cores.front()].is_outside = true;
  std::size_t racks = 0;
  for (unsigned pod = 0; pod < shape.pods; ++pod) {
    std::vector<DeviceIndex> aggregations;
    for (unsigned i = 0; i < shape.aggregations; ++i) {
      aggregations.push_back(add(fmt::format("agg{}-{}", pod, i), 2));
      for (const DeviceIndex core : cores) join(aggregations.back(), core);
    }
    for (unsigned i = 0; i < shape.edges; ++i) {
      const DeviceIndex edge = add(fmt::format("edge{}", racks), 1);
      fabric.devices[edge].networks = {rack(racks, 21)};
      fabric.devices[edge].locators = {rack(racks, 22)};
      ++racks;
      for (const DeviceIndex each : aggregations) join(edge, each);
      for (unsigned n = 0; n < shape.hosts; ++n) {
        join(edge, add(fmt::format("host{}-{}", racks, n), 0));
      }
    }
  }
  return fabric;
}

std::vector<DeviceIndex> hosts_of(const Fabric& fabric) {
  std::vector<DeviceIndex> hosts;
  for (DeviceIndex i = 0; i < fabric.devices.size(); ++i) {
    if (fabric.devices[i].is_host()) hosts.push_back(i);
  }
  return hosts;
}

// Guests from a host by chance to another rack's.
std::vector<GuestMove> moves(const Fabric& fabric, Detours detours) {
  std::mt19937 random(1);
  const auto hosts = hosts_of(fabric);
  std::map<DeviceIndex, std::uint32_t> used;  // of an edge's addresses and locators
  std::vector<GuestMove> moves;
  while (moves.size() < kGuests) {
    const DeviceIndex from = hosts[random() % hosts.size()], to = hosts[random() % hosts.size()];
    const DeviceIndex home = fabric.devices[from].neighbours.front();
    const DeviceIndex edge = fabric.devices[to].neighbours.front();
    if (home == edge) continue;
    const auto nth = [&](const IpPrefix& network, DeviceIndex of) {
      return Ip::of4(network.address.as4() + 1 + used[of]++);
    };
    const Ip address = nth(fabric.devices[home].networks[0], home);
    const Ip locator = nth(fabric.devices[edge].locators[0], edge);
    moves.push_back({from, to, {{address, {}, locator}}, detours});
  }
  return moves;
}

// ---- plan, install ----

using Contents = std::map<DeviceIndex, os::Rewrites>;

Contents contents_at(const Fabric& fabric, const std::vector<GuestMove>& moves, Phase phase) {
  Contents contents;
  for (const GuestMove& move : moves) {
    for (const auto& [device, rules] : tables_at(fabric, move, phase)) {
      if (fabric.devices[device].is_host()) continue;
      for (const Rule& rule : rules) {
        if (rule.kind == RuleKind::claim) continue;
        auto& content = contents[device];
        (rule.is_active ? content.depart : content.staged)[rule.match] = rule.becomes;
      }
    }
  }
  return contents;
}

void measure_install(int rounds) {
  const Fabric fabric = clos({.cores = 2, .pods = 1, .aggregations = 2, .edges = 4, .hosts = 8});
  const auto all = moves(fabric, Detours::none);
  for (int i = 0; i < rounds; ++i) {
    auto begun = Clock::now();
    const Contents staged = contents_at(fabric, all, Phase::staged);
    const Contents flipped = contents_at(fabric, all, Phase::flipped);
    row("plan-1000", "godwit-nat", "plan_ms", ms_since(begun), "ms");
    std::map<DeviceIndex, std::pair<os::NetNamespace, os::AddressRewriting>> devices;
    for (const auto& [device, content] : staged) {
      devices.try_emplace(device, os::NetNamespace::create(), os::AddressRewriting());
    }
    const auto write = [&](const Contents& contents) {
      for (auto& [device, place] : devices) {
        place.first.run([&] {
          const auto done = place.second.set(contents.at(device));
          if (!done) fail_setup("{}", done.error().text);
        });
      }
    };
    begun = Clock::now();
    write(staged);
    row("install-1000", "godwit-nat", "stage_s", ms_since(begun) / 1000, "s");
    begun = Clock::now();
    write(flipped);
    row("install-1000", "godwit-nat", "flip_s", ms_since(begun) / 1000, "s");
    begun = Clock::now();
    std::size_t rules = 0;
    for (auto& [device, place] : devices) {
      const auto found = place.first.run(os::AddressRewriting::read);
      if (!found || *found != flipped.at(device)) fail_setup("a device has not what was written");
      rules += found->depart.size();
    }
    row("install-1000", "godwit-nat", "verify_s", ms_since(begun) / 1000, "s");
    row("install-1000", "godwit-nat", "rules", static_cast<double>(rules), "rules");
    row("install-1000", "godwit-nat", "devices", static_cast<double>(devices.size()), "devices");
  }
}

// ---- scale ----

void tell_by_tier(const Fabric& fabric, const std::string& system,
                  const std::map<DeviceIndex, std::size_t>& rules) {
  std::size_t written = 0;
  for (std::size_t tier = 0; tier < fabric.tiers.size(); ++tier) {
    std::size_t most = 0, total = 0, devices = 0;
    for (DeviceIndex i = 0; i < fabric.devices.size(); ++i) {
      if (fabric.devices[i].tier != tier) continue;
      ++devices;
      const auto found = rules.find(i);
      if (found == rules.end()) continue;
      most = std::max(most, found->second);
      total += found->second;
    }
    written += total;
    row("scale-100k", system, fabric.tiers[tier] + "_rules_most", static_cast<double>(most),
        "rules");
    row("scale-100k", system, fabric.tiers[tier] + "_rules_mean",
        static_cast<double>(total) / static_cast<double>(devices), "rules");
  }
  row("scale-100k", system, "rules_per_guest", static_cast<double>(written) / kGuests, "rules");
}

// The alternative: a route for each displaced guest at every device whose way to it is another than
// that to its home.
std::map<DeviceIndex, std::size_t> host_routes(const Fabric& fabric,
                                               const std::vector<GuestMove>& moves) {
  std::map<DeviceIndex, std::size_t> routes;
  for (const GuestMove& move : moves) {
    const auto home = distances(fabric, fabric.homes_of(move.addresses[0].address));
    const auto there = distances(fabric, {move.to});
    for (DeviceIndex i = 0; i < fabric.devices.size(); ++i) {
      if (fabric.devices[i].is_host()) continue;
      if (next_hops(fabric, home, i) != next_hops(fabric, there, i)) ++routes[i];
    }
  }
  return routes;
}

void measure_scale() {
  const Fabric fabric =
      clos({.cores = 16, .pods = 50, .aggregations = 4, .edges = 40, .hosts = 50});
  for (const auto& [detours, system] : {std::pair(Detours::none, "godwit-nat"),
                                        std::pair(Detours::allowed, "godwit-nat-detours")}) {
    const auto all = moves(fabric, detours);
    const auto begun = Clock::now();
    std::map<DeviceIndex, std::size_t> rules;
    for (const GuestMove& move : all) {
      for (const auto& [device, its] : tables_at(fabric, move, Phase::settled)) {
        rules[device] += its.size();
      }
    }
    row("scale-100k", system, "plan_ms_per_guest", ms_since(begun) / kGuests, "ms");
    tell_by_tier(fabric, system, rules);
  }
  tell_by_tier(fabric, "host-routes", host_routes(fabric, moves(fabric, Detours::none)));
}

// ---- through ----

// client ── device ── host: what goes to 10.9.0.5 is for 10.2.0.77 from the device on, and for
// 10.9.0.5 again at the host; what goes to 10.2.0.2 is left as it is.
constexpr std::uint32_t kRewritten = 0x0a090005, kLocator = 0x0a02004d, kPlain = 0x0a020002;
constexpr std::uint16_t kPort = 7007;

class Way final {
 public:
  Way() {
    join(client_, device_, 1);
    join(device_, host_, 2);
    device_.run([] { std::ofstream("/proc/sys/net/ipv4/ip_forward") << 1; });
    client_.run([] { os::Netlink().add_route("default", "10.1.0.2"); });
    host_.run([] {
      os::Netlink().add_route("default", "10.2.0.1");
      os::Netlink().add_address("lo", "10.9.0.5/32");
      os::Netlink().add_address("from2", "10.2.0.77/32");
    });
    os::Rewrites at_device{.depart = {{Ip::of4(kRewritten), Ip::of4(kLocator)}}};
    os::Rewrites at_host{.arrive = {{Ip::of4(kLocator), Ip::of4(kRewritten)}}};
    for (std::uint32_t i = 0; i < kGuests; ++i) {
      at_device.depart[Ip::of4(0x0a0a0000U + i)] = Ip::of4(0x0a0b0000U + i);
    }
    write(device_, at_device_, at_device);
    write(host_, at_host_, at_host);
  }

  os::NetNamespace& client() { return client_; }
  os::NetNamespace& host() { return host_; }

 private:
  static void write(os::NetNamespace& place, os::AddressRewriting& rewriting,
                    const os::Rewrites& rewrites) {
    place.run([&] {
      if (const auto done = rewriting.set(rewrites); !done) fail_setup("{}", done.error().text);
    });
  }

  os::NetNamespace client_ = os::NetNamespace::create(), device_ = os::NetNamespace::create(),
                   host_ = os::NetNamespace::create();
  os::AddressRewriting at_device_, at_host_;
};

double gbps(Way& way, std::uint32_t to, Nanoseconds length) {
  const os::Fd listener = socket_in(way.host(), SOCK_STREAM),
               fd = socket_in(way.client(), SOCK_STREAM);
  const sockaddr_in any = socket_address(INADDR_ANY, kPort), there = socket_address(to, kPort);
  need(::bind(listener.number(), as_sockaddr(any), sizeof any) == 0, "bind");
  need(::listen(listener.number(), 1) == 0, "listen");
  need(::connect(fd.number(), as_sockaddr(there), sizeof there) == 0, "connect");
  const os::Fd accepted(::accept(listener.number(), nullptr, nullptr));
  std::size_t bytes = 0;
  std::thread sink([&] {
    std::vector<char> buffer(1 << 20);
    for (ssize_t got = 0; (got = ::read(accepted.number(), buffer.data(), buffer.size())) > 0;) {
      bytes += static_cast<std::size_t>(got);
    }
  });
  const std::vector<char> buffer(1 << 18);
  const auto begun = Clock::now();
  while (Clock::now() - begun < length) {
    need(::write(fd.number(), buffer.data(), buffer.size()) > 0, "write");
  }
  ::shutdown(fd.number(), SHUT_WR);
  sink.join();
  return static_cast<double>(bytes) * 8 / (ms_since(begun) * 1e6);
}

void measure_through(int rounds, Nanoseconds length) {
  Way way;
  constexpr std::array kSystems{std::pair{kRewritten, "godwit-nat"}, std::pair{kPlain, "nothing"}};
  for (int i = 0; i < rounds; ++i) {
    for (const auto& [to, system] : kSystems) {
      row("through", system, "gbps", gbps(way, to, length), "Gbit/s");
      row("through", system, "round_trip_us",
          round_trip_us(way.client(), socket_address(INADDR_ANY, 0), way.host(),
                        socket_address(to, kPort), 5000),
          "us");
    }
  }
}

int run(bool is_quick) {
  measure_install(is_quick ? 3 : 7);
  measure_scale();
  measure_through(is_quick ? 3 : 7, is_quick ? seconds(1) : seconds(3));
  return 0;
}

}  // namespace
}  // namespace godwit

int main(int count, char** words) try {
  return godwit::run(count > 1 && std::string(words[1]) == "--quick");
} catch (const godwit::SetupError& error) {
  std::fprintf(stderr, "nat_rows: %s\n", error.what());
  return 1;
}

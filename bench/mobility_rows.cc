// What the rewriting of the strategy endpoint costs a datagram, a JSON row a line, for
// bench/mobility_latency.py: a connection whose addresses the hosts at both ends rewrite, and one
// that they leave alone, in turns.
//
//   correspondent Q 10.1.0.1 ── 10.1.0.2 the guest's host ── guest: P 10.66.1.20, and 10.2.0.2
//
// To P the correspondent has no way but by its host's rules: it comes by F, 10.1.0.200, or not.
#include <netinet/in.h>

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "os/address_rewriting.hh"
#include "os/connections.hh"
#include "os/moved_connections.hh"
#include "os/netlink.hh"
#include "round_trip.hh"

namespace godwit {
namespace {

constexpr std::uint32_t kMoved = 0x0a420114, kOnTheWay = 0x0a0100c8, kPlain = 0x0a020002;
constexpr std::uint32_t kPeer = 0x0a010001;
constexpr std::uint16_t kPort = 7007, kPeerPort = 5000;
constexpr int kRoundTrips = 5000;

// Of P's connection with Q, as each host knows it.
os::Connection connection(bool at_guest) {
  const Ip moved = Ip::of4(kMoved), peer = Ip::of4(kPeer);
  return {.protocol = IPPROTO_UDP,
          .guest = at_guest ? moved : peer,
          .peer = at_guest ? peer : moved,
          .guest_port = at_guest ? kPort : kPeerPort,
          .peer_port = at_guest ? kPeerPort : kPort,
          .from_guest = !at_guest,
          .replied = true,
          .assured = true,
          .timeout_s = 600,
          .mark = at_guest ? os::kInheritedMark : os::kLabelledMark};
}

void need(const Result<>& done) {
  if (!done) fail_setup("{}", done.error().text);
}

class Way final {
 public:
  Way() {
    join(correspondent_, host_, 1);
    join(host_, guest_, 2);
    host_.run([] {
      std::ofstream("/proc/sys/net/ipv4/ip_forward") << 1;
      os::Netlink().add_address("from1", "10.1.0.200/32");
      os::Netlink().add_route("10.66.1.20/32", "10.2.0.2");
    });
    correspondent_.run([] {
      os::Netlink().add_route("10.2.0.0/24", "10.1.0.2");
      os::Netlink netlink;  // where nobody is
      netlink.add_veth("nowhere", "beyond");
      netlink.add_address("nowhere", "10.3.0.1/24");
      netlink.set_up("nowhere");
      netlink.set_up("beyond");
      netlink.add_route("10.66.1.0/24", "10.3.0.2");
    });
    guest_.run([] {
      os::Netlink().add_address("from2", "10.66.1.20/32");
      os::Netlink().add_route("default", "10.2.0.1");
    });
    write();
  }

  double round_trip(std::uint32_t to) {
    return round_trip_us(correspondent_, socket_address(kPeer, kPeerPort), guest_,
                         socket_address(to, kPort), kRoundTrips);
  }

 private:
  void write() {
    const Ip moved = Ip::of4(kMoved), way = Ip::of4(kOnTheWay), peer = Ip::of4(kPeer);
    host_.run([&] {
      need(rewriting_.set({.arrive = {{way, moved}}}));
      need(os::set_moved_rules({.on_the_way = {{moved, way}},
                                .new_address = {{moved, way}},
                                .direct = {{moved, peer}},
                                .local = {moved}}));
      need(os::add_connections({connection(true)}));
    });
    correspondent_.run([&] {
      need(
          os::set_moved_rules({.moved = {{{peer, moved}, way}}, .coming = {{{way, peer}, moved}}}));
      need(os::add_connections({connection(false)}));
    });
  }

  os::NetNamespace correspondent_ = os::NetNamespace::create(), host_ = os::NetNamespace::create(),
                   guest_ = os::NetNamespace::create();
  os::AddressRewriting rewriting_;
};

int run(int rounds) {
  Way way;
  for (int i = 0; i < rounds; ++i) {
    for (const auto& [to, system] :
         {std::pair{kMoved, "godwit-endpoint"}, std::pair{kPlain, "nothing"}}) {
      std::puts(nlohmann::json{{"system", system}, {"value", way.round_trip(to)}}.dump().c_str());
      std::fflush(stdout);
    }
  }
  return 0;
}

}  // namespace
}  // namespace godwit

int main(int count, char** words) try {
  return godwit::run(count > 1 && std::string(words[1]) == "--quick" ? 3 : 15);
} catch (const godwit::SetupError& error) {
  std::fprintf(stderr, "mobility_rows: %s\n", error.what());
  return 1;
}

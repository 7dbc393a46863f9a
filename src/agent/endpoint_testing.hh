#pragma once
// Hosts of one fleet in a process, each in a network namespace of its own, for moves with strategy
// endpoint: all is real but the sessions, which lose and refuse what a test says, and the uplinks'
// wires, over which nothing comes. Needs root, or is skipped.
//
//   home: 10.66.1.0/24, guest kWeb    f1, f2: 10.66.2.0/24, 10.66.5.0/24
//   q1: 10.66.3.0/24, guest kPeer     x1: 10.66.4.0/24
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "agent/connection_list.hh"
#include "agent/connection_testing.hh"
#include "agent/endpoint_lead.hh"
#include "agent/relocations.hh"
#include "os/netlink.hh"
#include "os/netns.hh"
#include "store/disk.hh"

namespace godwit::agent::endpoint_testing {

using nlohmann::json;
using translate::Phase;

inline Ip ip(std::string_view text) { return parse_ip(text).value(); }
inline const Ip kWeb = ip("10.66.1.20"), kPeer = ip("10.66.3.20");

class Host;

// What is asked comes in the order it was said in, if it comes.
struct Sessions {
  using Fault = std::function<std::optional<Error>(const std::string& to, const std::string& what)>;
  std::map<std::string, Host*> hosts;
  std::set<std::string> away;
  unsigned protocol = kStandsProtocol;
  Fault refuses = [](auto&&...) { return std::nullopt; };       // before anything is done
  Fault loses_answer = [](auto&&...) { return std::nullopt; };  // when it is done
  std::function<void(const std::string& to, const std::string& what, json& answer)> says =
      [](auto&&...) {};
  std::vector<std::string> asked;  // "flow.update q1"
};

class SessionsOf final : public Peers {
 public:
  SessionsOf(Sessions& sessions, std::string name) : sessions_(sessions), self_(std::move(name)) {}
  const std::string& self() const override { return self_; }
  bool is_up(const std::string& peer) const override {
    return sessions_.hosts.contains(peer) && !sessions_.away.contains(peer) &&
           !sessions_.away.contains(self_);
  }
  std::vector<std::string> up() const override {
    std::vector<std::string> up;
    for (const auto& [name, host] : sessions_.hosts) {
      if (name != self_ && is_up(name)) up.push_back(name);
    }
    return up;
  }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return sessions_.protocol; }
  void request(const std::string& peer, const std::string& method, const json& body, Reply reply,
               Nanoseconds) override;
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady) override {}

 private:
  Sessions& sessions_;
  std::string self_;
};

inline const std::vector<std::string> kHosts{"home", "f1", "q1", "x1", "f2"};
inline long site_of(const std::string& host) {
  return 1 + (std::ranges::find(kHosts, host) - kHosts.begin());
}

inline json fabric_file() {
  json devices{{"core", {{"tier", "core"}, {"outside", true}}}};
  for (const auto& host : kHosts) {
    const std::string net = "10.66." + std::to_string(site_of(host));
    devices["at-" + host] = {{"tier", "edge"},
                             {"up", {"core"}},
                             {"networks", {net + ".0/24"}},
                             {"locators", {net + ".192/26"}},
                             {"hosts", {host}}};
  }
  return {{"name", "lab"}, {"tiers", {"edge", "core"}}, {"devices", devices}};
}

class Host {
 public:
  template <class Work>
  auto in(Work&& work) {
    return netns.run(std::forward<Work>(work));
  }
  Host(Sessions& sessions, const std::string& name)
      : config([&] {
          Config made;
          made.name = name;
          return made;
        }()),
        peers(sessions, name) {
    sessions.hosts[name] = this;
    in([&] {
      os::Netlink netlink;
      netlink.add_veth("rack", "far");
      netlink.add_address("rack", "10.66." + std::to_string(site_of(name)) + ".1/24");
      for (const char* each : {"lo", "rack", "far"}) netlink.set_up(each);
      network.use_peers(peers);
      if (const auto set = fabrics.set(fabric_file()); !set) fail_setup("{}", set.error().text);
      device.start();
      start();
    });
  }
  ~Host() {
    in([&] {
      network.guests_changed = nullptr;
      relocations.reset();
      parts.reset();
      for (const auto& port : ports()) (void)network.remove_port(port, {});
    });
  }
  // As the agent was started again: what it kept is all that it knows.
  void start() {
    relocations.reset();
    parts.reset();
    parts.emplace(EndpointParts::Context{.loop = loop,
                                         .config = config,
                                         .store = *store,
                                         .network = network,
                                         .peers = peers,
                                         .device = device,
                                         .fabrics = fabrics,
                                         .events = events});
    parts->look_interval = milliseconds(500);
    parts->associations.start();
    parts->relays.start();
    parts->kernel.start();
    relocations.emplace(Relocation::Context{.loop = loop,
                                            .config = config,
                                            .store = *store,
                                            .network = network,
                                            .peers = peers,
                                            .device = device,
                                            .events = events},
                        fabrics, *parts);
    relocations->start();
  }
  PortId add_guest(const std::string& name, const Ip& address) {
    return in([&] {
      const auto made = network.add_port(
          {{"name", name}, {"kind", "uplink"}, {"guest_addresses", {address.text()}}});
      if (!made) fail_setup("{}", made.error().text);
      return id_field<PortId>(*made, "id").value();
    });
  }
  void track(const std::vector<os::Connection>& connections) {
    in([&] {
      if (const auto done = os::add_connections(connections); !done) {
        fail_setup("{}", done.error().text);
      }
    });
  }
  std::vector<std::string> ports() {
    std::vector<std::string> names;
    for (const auto& document : store->list("port")) {
      names.push_back(document.body.at("name").get<std::string>());
    }
    return names;
  }
  std::vector<os::Connection> tracked(const Ip& guest, std::uint32_t mark) {
    auto all = in([&] { return os::connections_of({guest}); });
    std::erase_if(all, [&](const auto& each) { return (each.mark & mark) == 0; });
    return all;
  }
  void answer(const std::string& peer, const std::string& method, const json& body,
              EndpointSource::Answer done) {
    in([&] {
      if (method.starts_with("flow.")) {
        return done(parts->associations.answer(peer, method, body));
      }
      if (method.starts_with("uplink.")) {
        PeerRequest request{.peer = peer, .method = method, .answer = std::move(done)};
        return relocations->on_request(std::move(request), body);
      }
      PeerRequest request{.peer = peer, .method = method, .answer = std::move(done)};
      method.starts_with("endpoint.") ? parts->source.on_request(std::move(request), body)
                                      : network.on_request(std::move(request), body);
    });
  }

  os::NetNamespace netns = os::NetNamespace::create();
  Config config;
  os::Loop loop;
  std::unique_ptr<store::Store> store = store::open_on(std::make_shared<store::MemoryDisk>());
  Events events;
  SessionsOf peers;
  WireThreads wires{loop,
                    config.name,
                    {},
                    {.control = [](auto&&...) {},
                     .event = [this](const wire::Event& event) { network.on_wire_event(event); }}};
  Network network{loop, config, *store, wires, events};
  Fabrics fabrics{*store, peers, events};
  DeviceDriver device{loop, config, *store, events};
  std::optional<EndpointParts> parts;
  std::optional<Relocations> relocations;
};

inline void SessionsOf::request(const std::string& peer, const std::string& method,
                                const json& body, Reply reply, Nanoseconds) {
  Host& from = *sessions_.hosts.at(self_);
  auto answered = std::make_shared<Reply>(std::move(reply));
  const auto back = [&from, answered](Result<json> answer) {
    from.loop.post([answered, answer] { (*answered)(answer); });
  };
  if (!is_up(peer)) return back(fail("no session with {}", peer));
  if (!method.starts_with("fabric.")) sessions_.asked.push_back(method + " " + peer);
  if (const auto error = sessions_.refuses(peer, method)) return back(std::unexpected(*error));
  Host& to = *sessions_.hosts.at(peer);
  to.loop.post([this, &to, peer, method, body, back] {
    to.answer(self_, method, body, [this, peer, method, back](Result<json> answer) {
      const auto lost = sessions_.loses_answer(peer, method);
      if (answer) sessions_.says(peer, method, *answer);
      back(lost ? std::unexpected(*lost) : std::move(answer));
    });
  });
}

// A guest's move, as its Relocation drives it.
class Move {
 public:
  Move(Host& from, Host& to, const PortId& port, const std::string& name, const Ip& address,
       std::int64_t relay_limit_s = 3600, Epoch epoch = 7)
      : from_(from), to_(to) {
    const std::string net = net_of(to), net_before = net_of(from), home = net_of(address);
    way = ip(net + ".200"), fresh = net == home ? address : ip(net + ".210");
    json on_the_way = json::object();
    if (net != home) on_the_way[address.text()] = way.text();
    record = {.port = port,
              .name = name,
              .from = from.config.name,
              .described = {{"port", {{"tenant", kDefaultTenant}}}},
              .epoch = epoch,
              .addresses = {{.address = address, .from_locator = {}, .to_locator = fresh}},
              .strategy = Strategy::endpoint,
              .lead = {{"on_the_way", on_the_way}, {"relay_limit_s", relay_limit_s}}};
    if (net_before != home) record.addresses[0].from_locator = ip(net_before + ".210");
    make();
  }
  ~Move() {
    to_.in([&] { lead_.reset(); });
  }
  EndpointLead& lead() { return *lead_; }
  void stage() {
    to_.in([&] { lead_->stage(); });
  }
  // The uplink is held here, and the guest runs.
  void run() {
    record.wanted = Phase::flipped;
    to_.in([&] {
      lead_->guest_runs();
      lead_->lead();
    });
  }
  // The source's has been told to stand.
  void stand() {
    const json told = from_.in([&] {
      const auto led = from_.parts->relays.forward(record.port, to_.config.name);
      EXPECT_TRUE(led) << led.error().text;
      return from_.parts->source.last_connections(record.port);
    });
    to_.in([&] { lead_->uplink_stands(told, [] {}); });
  }
  void arrive() {
    const json uplink = from_.in([&] { return from_.network.describe_nic(record.port).value(); });
    to_.in([&] {
      const auto held =
          to_.network.prepare_held(uplink, PortKind::uplink, record.from, record.epoch);
      EXPECT_TRUE(held && to_.network.route_guest(record.port, lead_->guest()));
    });
    from_.in([&] { from_.network.release({record.port}, record.epoch, [] {}); });
    record.here = true;
    to_.in([&] {
      to_.network.run_uplink(record.port, uplink);
      lead_->uplink_is_here();
    });
  }
  // Of the target's agent.
  void restart() {
    to_.in([&] {
      lead_.reset();
      to_.start();
      record = relocation_record(kept_);
      make();
      lead_->restart();
      if (record.here) lead_->uplink_is_here();
    });
  }
  json described() {
    return to_.in([&] { return lead_->describe(); });
  }
  std::pair<std::size_t, std::size_t> alive() {  // direct, relayed
    const json alive = described().at("alive");
    return {alive.at("direct"), alive.at("relayed")};
  }

  RelocationRecord record;
  Ip way{}, fresh{};

 private:
  static std::string net_of(const Host& host) {
    return "10.66." + std::to_string(site_of(host.config.name));
  }
  static std::string net_of(const Ip& address) {
    return address.text().substr(0, address.text().rfind('.'));
  }
  void make() {
    lead_ = std::make_unique<EndpointLead>(
        Lead::Context{.loop = to_.loop,
                      .config = to_.config,
                      .store = *to_.store,
                      .network = to_.network,
                      .peers = to_.peers,
                      .device = to_.device,
                      .events = to_.events},
        *to_.parts,
        Lead::Owner{.record = record,
                    .save =
                        [this] {
                          record.reached = lead_->reached();
                          kept_ = to_json(record);
                        },
                    .source_is_gone = [this] { return !to_.peers.is_up(record.from); },
                    .changed = [] {}});
  }

  Host& from_;
  Host& to_;
  json kept_;
  std::unique_ptr<EndpointLead> lead_;
};

class EndpointTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "namespaces need root";
    for (const auto& name : kHosts) hosts[name] = std::make_unique<Host>(sessions, name);
    web = host("home").add_guest("web", kWeb);
    peer = host("q1").add_guest("peer", kPeer);
  }
  Host& host(const std::string& name) { return *hosts.at(name); }
  // Until it is so, or for long enough that it will not be.
  bool until(const std::function<bool()>& is_so, Nanoseconds limit = seconds(10)) {
    const Instant end = host("home").loop.now() + limit;
    while (!is_so() && host("home").loop.now() < end) pump();
    return is_so();
  }
  void pump() {
    for (auto& [name, each] : hosts) each->in([&] { each->loop.run_once(milliseconds(1)); });
  }
  void settle() {
    for (int i = 0; i < 8; ++i) pump();
  }
  Move move_web(std::int64_t relay_limit_s = 3600) {
    return {host("home"), host("f1"), web, "web", kWeb, relay_limit_s};
  }
  // All of it, up to where only cleaning up is left.
  void go(Move& move) {
    move.stage();
    expect_staged(move);
    move.run();
    ASSERT_TRUE(until([&] { return move.lead().is_forwarded(); }));
    move.stand();
    move.arrive();
  }
  void expect_staged(Move& move) {
    ASSERT_TRUE(until([&] { return move.lead().is_staged(); })) << move.lead().refusal();
  }
  std::size_t asked(const std::string& what) const {
    return static_cast<std::size_t>(std::ranges::count(sessions.asked, what));
  }

  Sessions sessions;
  std::map<std::string, std::unique_ptr<Host>> hosts;
  PortId web, peer;
};

}  // namespace godwit::agent::endpoint_testing

#include "fabric/component.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fabric/router_settings.hh"
#include "fabric/switch_settings.hh"

namespace godwit::fabric {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;

const json kRequest = {{"name", "sw1"},
                       {"tenant", "blue"},
                       {"ports",
                        {{{"name", "web"}, {"access", 10}, {"isolated", true}},
                         {{"name", "up"}, {"trunk", {10, 20}}, {"native", 1}, {"mirrored", true}},
                         {{"name", "tap"}, {"flooded_per_s", 500}}}},
                       {"mirror", "tap"},
                       {"macs", {{{"mac", "52:54:00:00:00:01"}, {"port", "web"}, {"vlan", 10}}}},
                       {"ageing_s", 60}};

net::SwitchConfig config_of(const ComponentRecord& record) {
  return dynamic_cast<const SwitchSettings&>(*record.settings).config(record.places());
}

TEST(ComponentRecord, IsTheSameFromTheStore) {
  auto record = new_component(kRequest);
  ASSERT_TRUE(record) << record.error().text;
  record->id.bytes.fill(std::byte{1});
  for (ComponentPort& port : record->ports) port.id.bytes.fill(std::byte{2});
  EXPECT_EQ(to_json(component_record(to_json(*record)).value()), to_json(*record));
  // Also with a hole in its indices.
  auto fewer = changed(*record, {{"remove_ports", {"up"}}});
  ASSERT_TRUE(fewer) << fewer.error().text;
  EXPECT_EQ(to_json(component_record(to_json(*fewer)).value()), to_json(*fewer));
}

TEST(ComponentRecord, SaysWhatTheSwitchDoes) {
  const net::SwitchConfig config = config_of(*new_component(kRequest));
  EXPECT_EQ(config.ports.at(0), (net::SwitchPort{.access = 10, .isolated = true}));
  EXPECT_EQ(config.ports.at(1),
            (net::SwitchPort{.trunk = {10, 20}, .native = 1, .mirrored = true}));
  EXPECT_EQ(config.ports.at(2), net::SwitchPort{.flooded_per_s = 500});
  EXPECT_EQ(config.mirror, 2);
  EXPECT_THAT(config.macs,
              ElementsAre(net::StaticMac{.vlan = 10, .mac = 0x525400000001, .port = 0}));
  EXPECT_EQ(config.ageing, seconds(60));
}

TEST(ComponentRecord, ChangesWhatIsSaidOnly) {
  const auto record = *new_component(kRequest);
  const auto after =
      changed(record, {{"ports", {{{"name", "web"}, {"trunk", json::array()}}, {{"name", "new"}}}},
                       {"remove_ports", {"tap"}}});
  ASSERT_TRUE(after) << after.error().text;
  const net::SwitchConfig before = config_of(record), config = config_of(*after);
  EXPECT_EQ(config.ports.at(0), net::SwitchPort{.isolated = true});
  EXPECT_EQ(config.ports.at(1), before.ports.at(1));
  EXPECT_EQ(after->port("new")->index, 2) << "that was free";
  EXPECT_FALSE(config.mirror) << "it went with its port";
  EXPECT_EQ(config.ageing, seconds(60));
}

TEST(ComponentRecord, RefusesWhatItDoesNotUnderstand) {
  const auto refusal = [](const json& change) {
    json request = kRequest;
    request.update(change);
    const auto record = new_component(request);
    return record ? "" : record.error().text;
  };
  const auto with_port = [&](json port) {
    port["name"] = "p";
    return refusal({{"ports", {port}}, {"macs", json::array()}, {"mirror", ""}});
  };
  EXPECT_EQ(with_port({}), "");
  EXPECT_THAT(refusal({{"name", "Sw 1"}}), HasSubstr("no name"));
  EXPECT_THAT(refusal({{"type", "hub"}}), HasSubstr("not 'hub'"));
  EXPECT_THAT(refusal({{"ageing_s", 1}}), HasSubstr("'ageing_s' is a number, 10 to"));
  EXPECT_THAT(refusal({{"ageing_s", "5m"}}), HasSubstr("'ageing_s' is a number"));
  EXPECT_THAT(refusal({{"mirror", "nowhere"}}), HasSubstr("'nowhere'"));
  EXPECT_THAT(refusal({{"macs", {{{"mac", "x"}, {"port", "web"}}}}}), HasSubstr("no MAC"));
  EXPECT_THAT(with_port({{"access", 4095}}), HasSubstr("p: 'access'"));
  EXPECT_THAT(with_port({{"access", 1}, {"native", 2}}), HasSubstr("or a trunk"));
  EXPECT_THAT(with_port({{"trunk", {"ten"}}}), HasSubstr("list of numbers"));
  EXPECT_EQ(with_port({{"trunk", 10}}), "") << "a list of one";
  EXPECT_THAT(with_port({{"trunk", "all"}}), HasSubstr("'trunk' is a list")) << "not all of them";
  for (const char* key : {"ports", "macs"}) {
    EXPECT_THAT(refusal({{key, "web"}}), HasSubstr("is a list"));
  }
  EXPECT_THAT(refusal({{"remove_ports", 7}}), HasSubstr("is a list"));
  EXPECT_THAT(refusal({{"mirror", 1}}), HasSubstr("'mirror' is a text"));
  EXPECT_THAT(with_port({{"acess", 1}}), HasSubstr("there is no 'acess' here, but access"));
  EXPECT_THAT(refusal({{"routes", json::array()}}), HasSubstr("there is no 'routes'"));
  EXPECT_THAT(with_port({{"isolated", "yes"}}), HasSubstr("'isolated' is true or"));
}

const json kRouter = {
    {"name", "r1"},
    {"type", "router"},
    {"ports",
     {{{"name", "lan"},
       {"address", {"10.7.0.1/24", "fd00:7::1/64"}},
       {"shared", true},
       {"advertise", true},
       {"relay", "192.0.2.2"},
       {"dns", "fd00:7::53"}},
      {{"name", "wan"}, {"address", "192.0.2.1/24"}, {"mtu", 1400}, {"proxy", true}}}},
    {"routes",
     {{{"to", "0.0.0.0/0"}, {"via", "192.0.2.254"}},
      {{"to", "10.9.0.0/16"}, {"port", "wan"}, {"from", "10.7.0.0/25"}},
      {{"to", "203.0.113.0/24"}, {"drop", true}}}},
    {"sets", {{{"name", "web"}, {"members", {80, "8000-8099"}}}}},
    {"rules",
     {{{"action", "allow"}, {"in", "lan"}, {"states", {"new", "related"}}},
      {{"action", "reject"},
       {"to", "10.7.0.0/24"},
       {"protocol", "tcp"},
       {"ports", "@web"},
       {"log", true}},
      {{"action", "drop"},
       {"in", "wan"},
       {"out", "itself"},
       {"protocol", "icmp"},
       {"icmp_types", 8}}}},
    {"masquerade", {{{"out", "wan"}, {"from", "10.7.0.0/24"}, {"to", "192.0.2.5-192.0.2.6"}}}},
    {"forward",
     {{{"address", "192.0.2.1"},
       {"protocol", "tcp"},
       {"ports", 80},
       {"to", "10.7.0.9"},
       {"to_port", 8080}}}},
    {"one_to_one", {{{"outside", "192.0.2.8/29"}, {"inside", "10.7.0.8/29"}}}}};

TEST(ComponentRecord, OfAnyTypeIsTheSameFromTheStore) {
  const json dhcp = {{"name", "d1"},
                     {"type", "dhcp"},
                     {"address", "10.7.0.2/24"},
                     {"networks",
                      {{{"prefix", "10.7.0.0/24"},
                        {"range", "10.7.0.100-10.7.0.110"},
                        {"dns", {"9.9.9.9"}},
                        {"domain", "shop.test"},
                        {"mtu", 1400},
                        {"routes", {{{"to", "10.8.0.0/16"}, {"via", "10.7.0.1"}}}}}}},
                     {"reservations", {{{"mac", "52:54:00:00:00:01"}, {"address", "10.7.0.9"}}}}};
  const json firewall = {{"name", "f1"}, {"type", "firewall"}, {"rules", {{{"action", "allow"}}}}};
  const json nat = {{"name", "n1"}, {"type", "nat"}};
  for (const json& request : {kRouter, dhcp, firewall, nat}) {
    auto record = new_component(request);
    ASSERT_TRUE(record) << record.error().text;
    record->id.bytes.fill(std::byte{1});
    for (ComponentPort& port : record->ports) port.id.bytes.fill(std::byte{2});
    const json kept = to_json(*record);
    EXPECT_EQ(to_json(component_record(kept).value()), kept);
    // And as a request, as which a topology that was exported has it.
    EXPECT_EQ(to_json(new_component(kept).value())["ports"].size(), kept["ports"].size());
    EXPECT_NE(record->settings->make(record->places(), 1), nullptr);
  }
}

TEST(ComponentRecord, SaysWhatTheRouterDoes) {
  const auto record = new_component(kRouter);
  ASSERT_TRUE(record) << record.error().text;
  const auto config =
      dynamic_cast<const RouterSettings&>(*record->settings).config(record->places()).value();
  const auto ip = [](const char* text) { return parse_ip(text).value(); };
  const auto prefix = [](const char* text) { return parse_ip_prefix(text).value(); };
  const net::RouterPort& lan = config.ports.at(0);
  EXPECT_THAT(lan.addresses, ElementsAre(prefix("10.7.0.1/24"), prefix("fd00:7::1/64")));
  EXPECT_TRUE(lan.shared_mac && lan.advertises && !lan.is_proxy);
  EXPECT_EQ(*lan.shared_mac >> 24, 0x026777u);
  const auto router = record->settings->make(record->places(), 1);
  EXPECT_EQ(record->settings->describe(*router)["shared_macs"],
            (json{{"lan", net::to_text(*lan.shared_mac)}}));
  EXPECT_EQ(lan.dhcp_relay, ip("192.0.2.2"));
  EXPECT_EQ(config.ports.at(1).mtu, 1400);
  EXPECT_EQ(config.routes[0], (net::Route{.to = prefix("0.0.0.0/0"), .via = ip("192.0.2.254")}));
  EXPECT_EQ(config.routes[1],
            (net::Route{.from = prefix("10.7.0.0/25"), .to = prefix("10.9.0.0/16"), .port = 1}));
  EXPECT_EQ(config.routes[2], net::Route{.to = prefix("203.0.113.0/24")});
  const auto& rules = config.tracker->filter.rules;
  EXPECT_EQ(rules[0], (net::FilterRule{.in = {0}, .states = net::kNew | net::kRelated}));
  EXPECT_EQ(rules[1], (net::FilterRule{.action = net::Action::reject,
                                       .log = true,
                                       .to = {prefix("10.7.0.0/24")},
                                       .protocol = net::kTcp,
                                       .destination_ports = {{80, 80}, {8000, 8099}}}));
  EXPECT_EQ(rules[2], (net::FilterRule{.action = net::Action::drop,
                                       .in = {1},
                                       .out = {net::kItself},
                                       .protocol = net::kIcmp,
                                       .icmp_types = {8}}));
  const auto& nat = config.tracker->nat;
  EXPECT_EQ(nat.masquerade[0],
            (net::Masquerade{.out = {1},
                             .from = {prefix("10.7.0.0/24")},
                             .to = net::IpRange{ip("192.0.2.5"), ip("192.0.2.6")}}));
  EXPECT_EQ(nat.forward[0], (net::Forward{.address = ip("192.0.2.1"),
                                          .protocol = net::kTcp,
                                          .ports = {80, 80},
                                          .to = ip("10.7.0.9"),
                                          .to_port = 8080}));
  EXPECT_EQ(nat.one_to_one[0],
            (net::OneToOne{.outside = prefix("192.0.2.8/29"), .inside = prefix("10.7.0.8/29")}));
}

TEST(ComponentRecord, APortThatGoesTakesItsRoutesAlong) {
  const auto record = new_component(kRouter).value();
  const auto refused = changed(record, {{"remove_ports", "wan"}});
  EXPECT_THAT(refused.error().text, HasSubstr("'wan' is no port here")) << "rules name it";
  const auto after = changed(record, {{"remove_ports", "wan"},
                                      {"rules", json::array()},
                                      {"masquerade", json::array()},
                                      {"routes", json::array()}});
  ASSERT_TRUE(after) << after.error().text;
  EXPECT_EQ(to_json(*after)["routes"].size(), 0u);
  EXPECT_EQ(to_json(*after)["forward"].size(), 1u) << "nobody said anything of it";
}

TEST(ComponentRecord, LeasesGoThroughTheStore) {
  const auto record =
      new_component(
          {{"name", "d1"},
           {"type", "dhcp"},
           {"address", "10.7.0.2/24"},
           {"networks", {{{"prefix", "10.7.0.0/24"}, {"range", "10.7.0.100-10.7.0.110"}}}}})
          .value();
  const Settings& settings = *record.settings;
  const auto server = settings.make(record.places(), 1), next = settings.make(record.places(), 1);
  const Instant now = Instant{} + seconds(1000);
  const json kept = {{"leases",
                      {{{"address", "10.7.0.100"},
                        {"mac", "52:54:00:00:00:01"},
                        {"identifier", "01525400000001"},
                        {"host", "77656231"},
                        {"declined", false},
                        {"remaining_s", 60}},
                       {{"address", "10.7.0.101"},
                        {"mac", "52:54:00:00:00:02"},
                        {"identifier", ""},
                        {"host", ""},
                        {"declined", true},
                        {"remaining_s", 61}}}}};
  settings.restore(*server, kept, now);
  EXPECT_EQ(settings.state(*server, now), kept);
  settings.restore(*next, settings.state(*server, now + seconds(10)), now + seconds(10));
  const json rows = settings.table(*next, "leases", record.places(), now + seconds(10));
  EXPECT_EQ(rows[0], (json{{"address", "10.7.0.100"},
                           {"mac", "52:54:00:00:00:01"},
                           {"host", "web1"},
                           {"state", "bound"},
                           {"remaining_s", 50}}));
  EXPECT_EQ(rows[1]["state"], "declined");
}

}  // namespace
}  // namespace godwit::fabric

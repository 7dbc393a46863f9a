#include "fabric/component.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace godwit::fabric

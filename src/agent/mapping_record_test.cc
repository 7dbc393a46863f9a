#include "agent/mapping_record.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::IsEmpty;

Ip ip(std::string_view text) { return parse_ip(text).value(); }

PortRecord uplink(int number, std::vector<GuestAddress> guest, Epoch epoch = 1) {
  PortRecord record;
  record.id.bytes[0] = static_cast<std::byte>(number);
  record.name = fmt::format("uplink{}", number);
  record.kind = PortKind::uplink;
  record.epoch = epoch;
  record.guest = std::move(guest);
  return record;
}
GuestAddress at_home(const char* address) { return {.address = ip(address)}; }
GuestAddress away(const char* address, const char* now) {
  return {.address = ip(address), .new_address = ip(now)};
}

struct MappingRecordTest : testing::Test {
  MappingRecordTest() { config.dns_domain = "fleet.example"; }
  Place place_of(const PortRecord& record) {
    Place place = places_of({{.uplink = &record, .vm = "web"}}).at(0);
    place.since = "2026-12-01T02:00:00Z";
    return place;
  }
  // What a write makes of `found`.
  static void apply(const etcd::Write& write, etcd::Found& found) {
    for (const auto& [key, revision] : write.unchanged) {
      EXPECT_EQ(found.contains(key) ? found[key].revision : 0, revision);
    }
    for (const auto& [key, value] : write.changes) {
      if (value) {
        found[key] = {.text = *value, .revision = found[key].revision + 1};
      } else {
        found.erase(key);
      }
    }
  }
  MappingConfig config;
  Publisher f1{.config = config, .host = "f1", .site = "abroad"};
  Publisher h1{.config = config, .host = "h1", .site = "home"};
};

// docs/protocol/mapping.md
TEST_F(MappingRecordTest, KeysAndValuesAreAsDocumented) {
  const auto record = uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7);
  etcd::Found found;
  apply(f1.publish(place_of(record), {}).write.value(), found);
  std::map<std::string, std::string> texts;
  for (const auto& [key, value] : found) texts[key] = value.text;
  const std::map<std::string, std::string> documented = {
      {"/godwit/mapping/default/10.1.0.5",
       R"({"epoch":7,"holder":"f1","home":"10.1.0.5","mobile":"10.2.0.9",)"
       R"("since":"2026-12-01T02:00:00Z","site":"abroad","state":"flipped","tenant":"default",)"
       R"("vm":"web"})"},
      {"/godwit/epoch/default/10.1.0.5",
       R"({"epoch":7,"holder":"f1","port":"01000000000000000000000000000000",)"
       R"("since":"2026-12-01T02:00:00Z"})"},
      {"/skydns/example/fleet/web", R"({"host":"10.2.0.9","ttl":30})"}};
  EXPECT_EQ(texts, documented);
  EXPECT_FALSE(f1.publish(place_of(record), found).write) << "it is there";
}

TEST_F(MappingRecordTest, TheNewestEpochWins) {
  etcd::Found found;
  const Place before = place_of(uplink(1, {at_home("10.1.0.5")}, 6));
  const Place there = place_of(uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7));
  const Place back = place_of(uplink(1, {at_home("10.1.0.5")}, 8));
  apply(f1.publish(there, found).write.value(), found);
  EXPECT_EQ(h1.publish(before, found).superseded_by, "f1");
  EXPECT_FALSE(h1.publish(before, found).write);
  apply(h1.publish(back, found).write.value(), found);
  EXPECT_FALSE(found.contains("/godwit/mapping/default/10.1.0.5"));
  EXPECT_EQ(found["/skydns/example/fleet/web"].text, R"({"host":"10.1.0.5","ttl":30})");
  // Who was cut off meanwhile.
  EXPECT_EQ(f1.publish(there, found).superseded_by, "h1");
  EXPECT_EQ(f1.retract(there, found, false).superseded_by, "h1");
}

TEST_F(MappingRecordTest, OfTwoPortsTheLaterOneWins) {
  etcd::Found found;
  Place old = place_of(uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7));
  Place made = place_of(uplink(2, {at_home("10.1.0.5")}, 1));
  made.since = "2026-12-01T02:00:01Z";
  apply(f1.publish(old, found).write.value(), found);
  apply(h1.publish(made, found).write.value(), found);
  EXPECT_EQ(f1.publish(old, found).superseded_by, "h1");
}

TEST_F(MappingRecordTest, ARemovedPortTakesItsOwnAlong) {
  etcd::Found found;
  const Place place = place_of(uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7));
  apply(f1.publish(place, found).write.value(), found);
  auto kept = found;
  apply(f1.retract(place, kept, true).write.value(), kept);
  EXPECT_EQ(kept.size(), 1U) << "the name, which another address of the vm has";
  apply(f1.retract(place, found, false).write.value(), found);
  EXPECT_THAT(found, IsEmpty());
  EXPECT_FALSE(f1.retract(place, found, false).write);
}

TEST_F(MappingRecordTest, WhoHasNeverLeftHomeIsNotSpokenOf) {
  config.dns_domain = {};
  const Place place = place_of(uplink(1, {at_home("10.1.0.5")}));
  EXPECT_FALSE(h1.publish(place, {}).write);
}

TEST_F(MappingRecordTest, GarbageInItsKeysIsNobodys) {
  const Place place = place_of(uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7));
  for (const char* text :
       {"", "[]", "{\"epoch\":\"9\"}", "{\"epoch\":-1}", "\xff", "{\"port\":7}"}) {
    const auto verdict = f1.publish(place, {{f1.epoch_key(place), {.text = text, .revision = 3}}});
    ASSERT_TRUE(verdict.write) << text;
    EXPECT_EQ(verdict.write->unchanged.at(f1.epoch_key(place)), 3);
  }
}

// secondary-nic, on from f1 to y1, and nat.
TEST_F(MappingRecordTest, NewConnectionsUseWhatIsAtHome) {
  const auto first = uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7);
  auto second = uplink(2, {at_home("10.2.0.20")});
  auto places = places_of({{.uplink = &first, .vm = "web"}, {.uplink = &second, .vm = "web"}});
  EXPECT_EQ(places[0].mobile, ip("10.2.0.20"));
  EXPECT_EQ(places[0].named, ip("10.2.0.20"));
  EXPECT_EQ(places[1].named, ip("10.2.0.20"));
  EXPECT_FALSE(places[1].is_away);
  places = places_of({{.uplink = &first, .vm = "web"}, {.uplink = &second, .vm = "other"}});
  EXPECT_EQ(places[0].mobile, ip("10.2.0.9"));
  places = places_of({{.uplink = &first}, {.uplink = &second}});
  EXPECT_EQ(places[0].mobile, ip("10.2.0.9")) << "it is not known whose they are";
  EXPECT_FALSE(places[0].named);
  second = uplink(2, {{.address = ip("10.2.0.20"), .locator = ip("10.9.0.1")}});
  places = places_of({{.uplink = &second, .vm = "web"}});
  EXPECT_EQ(places[0].mobile, ip("10.9.0.1"));
  EXPECT_EQ(places[0].named, ip("10.2.0.20")) << "by nat its own address leads there";
}

TEST_F(MappingRecordTest, ATenantsNamesAreBelowItsOwn) {
  auto record = uplink(1, {at_home("fd00::5")});
  record.tenant = "red";
  EXPECT_EQ(f1.dns_key(place_of(record)), "/skydns/example/fleet/red/web");
  EXPECT_EQ(f1.mapping_key(place_of(record)), "/godwit/mapping/red/fd00::5");
}

TEST_F(MappingRecordTest, ListedValuesAreAStrangers) {
  const Place place = place_of(uplink(1, {away("10.1.0.5", "10.2.0.9")}, 7));
  const auto read = parse_mapping(f1.mapping(place).dump(), "default", 1'796'090'460);
  EXPECT_EQ(read["age_s"], 60) << read;
  EXPECT_EQ(read["mobile"], "10.2.0.9");
  EXPECT_TRUE(parse_mapping("{}", "default", 0).is_null());
  EXPECT_TRUE(parse_mapping("\xff", "default", 0).is_null());
  const auto odd = parse_mapping(
      R"({"home":"10.1.0.5","vm":7,"mobile":"<b>","tenant":"red","since":"soon","epoch":-2})",
      "blue", 0);
  EXPECT_EQ(odd["tenant"], "blue") << "its key says whose it is";
  EXPECT_EQ(odd["vm"], "");
  EXPECT_TRUE(odd["mobile"].is_null());
  EXPECT_FALSE(odd.contains("age_s"));
}

}  // namespace
}  // namespace godwit::agent

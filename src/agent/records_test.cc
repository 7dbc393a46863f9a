#include "agent/records.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::agent {
namespace {

using Json = nlohmann::json;

template <class AnId>
AnId an_id(unsigned char last) {
  AnId id;
  id.bytes[15] = std::byte{last};
  return id;
}

PortRecord a_port() {
  return {.id = an_id<PortId>(1),
          .name = "lan0",
          .tenant = "blue",
          .kind = PortKind::uplink,
          .epoch = 7,
          .vm = "",
          .component = "",
          .bridge = "",
          .interface = "lan0",
          .address = "10.9.0.1/24",
          .masquerade = true};
}

WireRecord a_wire() {
  return {.id = an_id<WireId>(2),
          .tenant = "blue",
          .local = an_id<PortId>(1),
          .remote = an_id<PortId>(3),
          .remote_name = "web0",
          .remote_host = "e1",
          .remote_epoch = 4};
}

VmRecord a_vm() {
  VmRecord record;
  record.spec.id = an_id<VmId>(5);
  record.spec.name = "web";
  record.spec.machine = "pc-q35-7.2";
  record.spec.kernel = "/boot/vmlinuz";
  record.process = {.pid = 4711, .start_time = 12345};
  record.arriving = an_id<MigrationId>(9);
  return record;
}

// What a wrong or hostile sender may put into any field.
const std::vector<Json> kHostile = {
    nullptr,          true,          -1, 3.5e300, 1ULL << 63, "", "x", "\xff\xfe", Json::array(),
    Json::array({1}), Json::object()};

TEST(Records, RoundTrip) {
  EXPECT_EQ(to_json(port_record(to_json(a_port()))), to_json(a_port()));
  EXPECT_EQ(to_json(wire_record(to_json(a_wire()))), to_json(a_wire()));
  EXPECT_EQ(to_json(vm_record(to_json(a_vm()))), to_json(a_vm()));
}

TEST(Records, AVmThatRanHereArrivesNoMore) {
  VmRecord record = a_vm();
  record.arriving.reset();
  EXPECT_EQ(vm_record(to_json(record)).arriving, std::nullopt);
}

TEST(Records, HostileFieldsNeverThrow) {
  for (const Json& good : {to_json(a_port()), to_json(a_wire())}) {
    for (const auto& [key, value] : good.items()) {
      for (const Json& hostile : kHostile) {
        Json bad = good;
        bad[key] = hostile;
        EXPECT_NO_THROW((void)parse_port(bad))
            << bad.dump(-1, ' ', true, Json::error_handler_t::replace);
        EXPECT_NO_THROW((void)parse_wire(bad))
            << bad.dump(-1, ' ', true, Json::error_handler_t::replace);
      }
    }
  }
  for (const Json& hostile : kHostile) {
    EXPECT_FALSE(parse_port(hostile));
    EXPECT_FALSE(parse_wire(hostile));
    EXPECT_NO_THROW((void)texts_field(hostile, "a"));
    EXPECT_NO_THROW((void)flag_field(hostile, "a", true));
    EXPECT_EQ(epoch_field(hostile, "a", 3), 3U);
  }
}

TEST(Records, EpochsThatCannotBeCountedOnAreNotTaken) {
  EXPECT_EQ(epoch_field({{"e", 0}}, "e", 8), 8U);
  EXPECT_EQ(epoch_field({{"e", -4}}, "e", 8), 8U);
  EXPECT_EQ(epoch_field({{"e", 0xffffffffULL}}, "e", 8), 8U);
  EXPECT_EQ(epoch_field({{"e", 0xfffffffeULL}}, "e", 8), 0xfffffffeU);
}

TEST(Records, NamesThatAreNoNamesAreRefused) {
  Json port = to_json(a_port());
  port["name"] = "../../etc";
  EXPECT_FALSE(parse_port(port));
  Json wire = to_json(a_wire());
  wire["remote"] = wire["local"];
  EXPECT_FALSE(parse_wire(wire)) << "a port cannot be wired to itself";
}

TEST(Records, AWireToAnotherFleetIsKeptApart) {
  WireRecord record = a_wire();
  EXPECT_EQ(store_kind(record), "wire");
  record.remote_host = "b1@beta";
  EXPECT_EQ(store_kind(record), kForeignWire);
  EXPECT_EQ(wire_record(to_json(record)).remote_host, "b1@beta");
  for (const char* bad : {"b1@", "@beta", "b1@beta@gamma"}) {
    Json wire = to_json(record);
    wire["remote_host"] = bad;
    EXPECT_FALSE(parse_wire(wire)) << bad;
  }
}

TEST(Records, AFlagOfAnotherTypeIsNamed) {
  const auto flag = flag_field({{"hold", "yes"}}, "hold", false);
  ASSERT_FALSE(flag);
  EXPECT_THAT(flag.error().text, testing::HasSubstr("'hold'"));
}

TEST(Records, AnUplinkTellsItsGuest) {
  PortRecord port = a_port();
  port.address.clear();
  port.masquerade = false;
  port.guest = {
      {.address = parse_ip("10.1.1.20").value(), .locator = parse_ip("10.1.4.200").value()},
      {.address = parse_ip("fd01:1::20").value()}};
  EXPECT_EQ(port_record(to_json(port)).guest, port.guest);
  EXPECT_FALSE(to_json(a_port()).contains("guest_addresses")) << "older agents' ports have none";
  EXPECT_EQ(parse_guest(Json::array({"10.1.1.20", "fd01:1::20"}))->size(), 2U) << "as it is said";
}

TEST(Records, WhatNoGuestCanHaveIsRefused) {
  for (const char* text :
       {R"("10.1.1.20")", R"(["10.1.1"])", R"([5])", R"(["127.0.0.1"])", R"(["fe80::1"])",
        R"(["224.0.0.1"])", R"(["0.0.0.0"])", R"(["10.1.1.20", "10.1.1.20"])",
        R"([{"address": "10.1.1.20", "locator": "here"}])", R"([{"locator": "10.1.4.200"}])"}) {
    EXPECT_FALSE(parse_guest(Json::parse(text))) << text;
  }
  EXPECT_FALSE(parse_guest(Json(std::vector<std::string>(17, "10.1.1.20"))));
}

}  // namespace
}  // namespace godwit::agent

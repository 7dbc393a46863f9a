#include "qemu/volume.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::qemu {
namespace {

using nlohmann::json;
using testing::HasSubstr;

json server_of(const std::string& uri, DiskAccess access = DiskAccess::write) {
  const VolumeSpec volume{.name = "data", .uri = uri};
  const auto good = check(volume);
  EXPECT_TRUE(good) << good.error().text;
  return good ? json::parse(volume_nodes(volume, "disk0", access).front()) : json();
}

TEST(VolumeTest, ServersAsQemuTakesThem) {
  EXPECT_EQ(server_of("nbd://10.0.0.1/data"),
            json::parse(R"({"driver": "nbd", "export": "data", "reconnect-delay": 60,
                            "server": {"type": "inet", "host": "10.0.0.1", "port": "10809"},
                            "node-name": "disk0-file", "read-only": false, "discard": "unmap"})"));
  EXPECT_EQ(server_of("nbd://store.example:5000/a/b%20c")["export"], "a/b c");
  EXPECT_EQ(server_of("nbd://[2001:db8::1]/")["server"]["host"], "2001:db8::1");
  const json iscsi = server_of("iscsi://10.0.0.1/iqn.2026-01.example:disk/1");
  EXPECT_EQ(iscsi["driver"], "iscsi");
  EXPECT_EQ(iscsi["portal"], "10.0.0.1:3260");
  EXPECT_EQ(iscsi["target"], "iqn.2026-01.example:disk");
  EXPECT_EQ(iscsi["lun"], 1);
  EXPECT_EQ(server_of("iscsi://[::1]:3261/t/0")["portal"], "[::1]:3261");
  const json nfs = server_of("nfs://filer/export/vms/db.raw");
  EXPECT_EQ(nfs["driver"], "nfs");
  EXPECT_EQ(nfs["server"]["host"], "filer");
  EXPECT_EQ(nfs["path"], "/export/vms/db.raw");
  const json rbd = server_of("rbd:vms/db");
  EXPECT_EQ(rbd["driver"], "rbd");
  EXPECT_EQ(rbd["pool"], "vms");
  EXPECT_EQ(rbd["image"], "db");
  EXPECT_FALSE(rbd.contains("namespace"));
  EXPECT_EQ(server_of("rbd:vms/red/db")["namespace"], "red");
}

TEST(VolumeTest, ReadOnlyToBeLookedAtAndOfADrive) {
  EXPECT_EQ(server_of("nbd://h/x", DiskAccess::look)["read-only"], true);
  const VolumeSpec drive{.name = "cd", .bus = DiskBus::cdrom, .uri = "nbd://h/x"};
  for (const auto& node : volume_nodes(drive, "disk0")) {
    EXPECT_EQ(json::parse(node)["read-only"], true);
  }
}

TEST(VolumeTest, WhatIsRefused) {
  const auto refused = [](const std::string& uri) {
    const auto good = check(VolumeSpec{.name = "data", .uri = uri});
    return good ? "" : good.error().text;
  };
  EXPECT_THAT(refused(""), HasSubstr("no URI"));
  EXPECT_THAT(refused("/dev/sda"), HasSubstr("no URI"));
  EXPECT_THAT(refused("file:///etc/shadow"), HasSubstr("none of nbd, iscsi, nfs, rbd"));
  EXPECT_THAT(refused("nbd:unix:/run/x"), HasSubstr("no host"));
  EXPECT_THAT(refused("nbd://user:secret@h/x"), HasSubstr("secrets"));
  EXPECT_THAT(refused("nfs://h/e/f?uid=0"), HasSubstr("more than"));
  EXPECT_THAT(refused("iscsi://h/target"), HasSubstr("TARGET/LUN"));
  EXPECT_THAT(refused("iscsi://h/target/one"), HasSubstr("no number"));
  EXPECT_THAT(refused("nfs://h//f"), HasSubstr("empty"));
  EXPECT_THAT(refused("rbd://pool/image"), HasSubstr("rbd:POOL/IMAGE"));
  EXPECT_THAT(refused("rbd:image"), HasSubstr("rbd:POOL/IMAGE"));
  EXPECT_THAT(refused("nbd://h/" + std::string(kMaxUri, 'x')), HasSubstr("too long"));
  EXPECT_FALSE(check(VolumeSpec{.name = "Data", .uri = "nbd://h/x"}));
  EXPECT_FALSE(check(VolumeSpec{.name = "data", .bus = DiskBus::pflash, .uri = "nbd://h/x"}));
}

TEST(VolumeTest, JsonThereAndBack) {
  const VolumeSpec volume{.name = "data", .bus = DiskBus::scsi, .uri = "rbd:vms/db"};
  EXPECT_EQ(volume_spec_from_json(to_json(volume)), volume);
  EXPECT_FALSE(volume_spec_from_json({{"name", "data"}, {"bus", "scsi"}}));
}

}  // namespace
}  // namespace godwit::qemu

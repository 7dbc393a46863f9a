#include "libvirt/domain_xml.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace godwit::libvirt {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string domain_with(const std::string& devices, const std::string& type = "kvm") {
  return "<domain type='" + type +
         "' id='1'><name>web1</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>"
         "<memory unit='KiB'>262144</memory><devices>" +
         devices + "</devices></domain>";
}

const std::string kDisk =
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"
    "<source file='/var/lib/libvirt/images/web1.qcow2' index='1'/><backingStore/>"
    "<target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>";

constexpr unsigned long kQemu = 9'001'002;  // 9.1.2

TEST(DomainXmlTest, WhatAMoveHasToKnow) {
  const auto domain = parse_domain(
      domain_with(kDisk + "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>"
                          "<source file='/iso/seed.iso'/><target dev='sda'/><readonly/><alias "
                          "name='sata0-0-0'/></disk>"
                          "<disk type='file' device='cdrom'><target dev='sdb'/><readonly/></disk>"
                          "<interface type='bridge'><source bridge='br0'/></interface>"
                          "<interface type='bridge'><source bridge='br0'/></interface>"),
      kQemu);
  ASSERT_TRUE(domain) << domain.error().text;
  EXPECT_EQ(domain->name, "web1");
  EXPECT_EQ(domain->uuid, "6695eb01-f6a4-8304-79aa-97f2502e193f");
  EXPECT_EQ(domain->memory, ByteCount{256 << 20});
  EXPECT_THAT(domain->bridges, ElementsAre("br0"));
  EXPECT_THAT(domain->obstacles, IsEmpty());
  ASSERT_EQ(domain->disks.size(), 2U);  // the empty drive is none
  EXPECT_TRUE(domain->disks[1].is_read_only);
  EXPECT_THAT(domain->moving_disks(),
              ElementsAre(DomainDisk{.target = "vda",
                                     .alias = "virtio-disk0",
                                     .path = "/var/lib/libvirt/images/web1.qcow2",
                                     .format = "qcow2"}));
}

TEST(DomainXmlTest, MemoryInItsUnits) {
  for (const auto& [text, bytes] : std::initializer_list<std::pair<const char*, std::uint64_t>>{
           {"<memory>1024</memory>", 1 << 20},
           {"<memory unit='MiB'>3</memory>", 3 << 20},
           {"<memory unit='GiB'>1</memory>", 1 << 30},
           {"<memory unit='bytes'>4096</memory>", 4096}}) {
    const auto domain = parse_domain(
        "<domain type='qemu'><name>a</name><uuid>u</uuid>" + std::string(text) + "</domain>",
        kQemu);
    ASSERT_TRUE(domain);
    EXPECT_EQ(domain->memory, ByteCount{bytes}) << text;
  }
}

TEST(DomainXmlTest, AnOlderEmulatorLosesWrites) {
  const auto warnings = [](const std::string& type, unsigned long qemu) {
    return parse_domain(domain_with("", type), qemu).value().warnings;
  };
  EXPECT_THAT(warnings("qemu", 7'002'022), ElementsAre(HasSubstr("QEMU 7.2,")));
  EXPECT_THAT(warnings("qemu", kQemu), IsEmpty());
  EXPECT_THAT(warnings("kvm", 7'002'022), IsEmpty());
}

TEST(DomainXmlTest, WhatCannotMoveIsNamed) {
  const auto obstacle = [](const std::string& devices, const std::string& type = "kvm") {
    const auto domain = parse_domain(domain_with(devices, type), kQemu);
    return domain && domain->obstacles.size() == 1 ? domain->obstacles[0] : "";
  };
  EXPECT_THAT(obstacle("<disk type='network' device='disk'><driver type='raw'/>"
                       "<source protocol='rbd' name='pool/a'/><target dev='vdb'/></disk>"),
              HasSubstr("vdb is of type network"));
  EXPECT_THAT(obstacle("<disk type='file' device='disk'><driver type='vmdk'/>"
                       "<source file='/a'/><target dev='vdb'/></disk>"),
              HasSubstr("vmdk"));
  EXPECT_THAT(obstacle("<disk type='file' device='disk'><driver type='qcow2'/><source file='/a'>"
                       "<encryption format='luks'/></source><target dev='vdb'/></disk>"),
              HasSubstr("encrypted"));
  EXPECT_THAT(obstacle("<hostdev mode='subsystem' type='pci'/>"), HasSubstr("device of the host"));
  EXPECT_THAT(obstacle("<filesystem type='mount'/>"), HasSubstr("directory"));
  EXPECT_THAT(obstacle("", "lxc"), HasSubstr("lxc"));
}

TEST(DomainXmlTest, WhatIsNoDomainIsRefused) {
  EXPECT_FALSE(parse_domain("", kQemu));
  EXPECT_FALSE(parse_domain("<network/>", kQemu));
  EXPECT_FALSE(parse_domain("<domain type='kvm'><name>a</name></domain>", kQemu));
  EXPECT_FALSE(parse_domain("<domain", kQemu));
}

TEST(DomainXmlTest, JsonThereAndBack) {
  auto domain = parse_domain(domain_with(kDisk + "<hostdev/>", "qemu"), 0);
  ASSERT_TRUE(domain);
  domain->disks[0].size = {1 << 30};
  const auto back = domain_from_json(to_json(*domain));
  ASSERT_TRUE(back);
  EXPECT_EQ(to_json(*back), to_json(*domain));
  EXPECT_EQ(back->disks, domain->disks);
  EXPECT_EQ(back->warnings.size(), 1U);
  EXPECT_FALSE(domain_from_json({{"name", "web1"}}));
  EXPECT_FALSE(domain_from_json({{"name", 3}}));
}

}  // namespace
}  // namespace godwit::libvirt

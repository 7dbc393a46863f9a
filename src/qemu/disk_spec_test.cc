#include "qemu/disk_spec.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "qemu/argv.hh"

namespace godwit::qemu {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kSum(64, 'a');

std::vector<DiskSpec> two_disks() {
  return {{.name = "root",
           .size = ByteCount{8ULL << 30},
           .image = {.name = "debian", .format = DiskFormat::raw, .sha256 = kSum}},
          {.name = "data",
           .format = DiskFormat::raw,
           .bus = DiskBus::scsi,
           .size = ByteCount{1ULL << 30}}};
}

VmSpec vm_with_disks() {
  VmSpec spec;
  spec.id = *VmId::parse("00112233445566778899aabbccddeeff");
  spec.name = "db1";
  spec.machine = "pc-q35-7.2";
  spec.disks = two_disks();
  return spec;
}

TEST(DiskSpec, SurvivesJson) {
  const VmSpec spec = vm_with_disks();
  const auto back = vm_spec_from_json(to_json(spec));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(*back, spec);
}

TEST(DiskSpec, AVmOfAVersionBeforeHasNone) {
  nlohmann::json old = to_json(vm_with_disks());
  old.erase("disks");
  old["image"] = "/images/disk.raw";
  const auto spec = vm_spec_from_json(old);
  ASSERT_TRUE(spec) << spec.error().text;
  EXPECT_TRUE(spec->disks.empty());
}

TEST(DiskSpec, RefusesWhatIsWrongAndNamesIt) {
  const auto refusal = [](auto change) {
    VmSpec spec = vm_with_disks();
    change(spec.disks);
    const auto result = vm_spec_from_json(to_json(spec));
    return result ? std::string("accepted") : result.error().text;
  };
  using Disks = std::vector<DiskSpec>;
  EXPECT_THAT(refusal([](Disks& d) { d[0].name = "../root"; }), HasSubstr("../root"));
  EXPECT_THAT(refusal([](Disks& d) { d[0].name = std::string(21, 'r'); }), HasSubstr("20"));
  EXPECT_THAT(refusal([](Disks& d) { d[1].name = "root"; }), HasSubstr("twice"));
  EXPECT_THAT(refusal([](Disks& d) { d[1].size = ByteCount{1000}; }), HasSubstr("sectors"));
  EXPECT_THAT(refusal([](Disks& d) { d[1].size.bytes += 100; }), HasSubstr("sectors"));
  EXPECT_THAT(refusal([](Disks& d) { d[0].format = DiskFormat::raw; }), HasSubstr("overlay"));
  EXPECT_THAT(refusal([](Disks& d) { d[0].image.sha256 = "abc"; }), HasSubstr("debian"));
  EXPECT_THAT(refusal([](Disks& d) { d.resize(kMaxDisks + 1, d[1]); }), HasSubstr("most"));
}

std::vector<std::string> argv_of(const VmSpec& spec) {
  return qemu_argv(spec, {.tap_fds = {},
                          .disks = {{.file = "/d/root,1.qcow2", .image = "/i/debian.raw"},
                                    {.file = "/d/data.raw"}}});
}

TEST(DiskArguments, AnOverlayIsOnItsImageWhateverItsFileSays) {
  const auto argv = argv_of(vm_with_disks());
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr(R"("filename":"/i/debian.raw")"),
                                   HasSubstr(R"("read-only":true)"))));
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr(R"("node-name":"disk0")"),
                                   HasSubstr(R"("backing":"disk0-image")"),
                                   HasSubstr(R"("driver":"qcow2")"))));
  EXPECT_THAT(argv, Contains(HasSubstr(R"("filename":"/d/root,1.qcow2")")));
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr("virtio-blk-pci"), HasSubstr("addr=0x11"),
                                   HasSubstr("bootindex=1"), HasSubstr("serial=root"))));
}

TEST(DiskArguments, OneWithoutAnImageIsOnNone) {
  VmSpec spec = vm_with_disks();
  spec.disks[0].image = {};
  EXPECT_THAT(argv_of(spec),
              Contains(AllOf(HasSubstr(R"("node-name":"disk0")"), HasSubstr(R"("backing":null)"))));
}

TEST(DiskArguments, RawOnScsi) {
  const auto argv = argv_of(vm_with_disks());
  EXPECT_THAT(argv, Contains(HasSubstr("virtio-scsi-pci")));
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr(R"("node-name":"disk1")"),
                                   HasSubstr(R"("driver":"raw")"), Not(HasSubstr("backing")))));
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr("scsi-hd"), HasSubstr("scsi-id=1"))));
}

TEST(DiskArguments, ACdIsReadOnly) {
  VmSpec spec = vm_with_disks();
  spec.disks[0].bus = DiskBus::cdrom;
  EXPECT_THAT(argv_of(spec), Contains(AllOf(HasSubstr("scsi-cd"), HasSubstr("scsi-id=0"))));
  spec.disks[0].image = {};
  EXPECT_FALSE(check(spec.disks)) << "which image is in the drive?";
}

TEST(DiskArguments, UefiVariablesAreFlash) {
  VmSpec spec = vm_with_disks();
  spec.disks[1] = {.name = "uefi-vars",
                   .format = DiskFormat::raw,
                   .bus = DiskBus::pflash,
                   .size = ByteCount{528 << 10}};
  EXPECT_FALSE(check(spec)) << "of which firmware?";
  spec.uefi = ByteCount{3 << 20};
  ASSERT_TRUE(check(spec));
  EXPECT_EQ(vm_spec_from_json(to_json(spec)).value(), spec);
  const auto argv = qemu_argv(
      spec, {.tap_fds = {},
             .disks = {{.file = "/d/root.qcow2", .image = "/i/debian.raw"}, {.file = "/d/vars"}},
             .uefi = Firmware{.code = "/fw/code,1", .variables = {}}});
  EXPECT_THAT(argv, Contains(HasSubstr(",pflash0=uefi-code,pflash1=disk1")));
  EXPECT_THAT(argv, Contains(AllOf(HasSubstr("uefi-code"), HasSubstr("read-only=on"),
                                   HasSubstr("filename=/fw/code,,1"))));
  EXPECT_THAT(argv, Not(Contains(HasSubstr("drive=disk1"))));
  spec.disks[1].format = DiskFormat::qcow2;
  EXPECT_FALSE(check(spec));
}

TEST(DiskArguments, ATpmIsBesideDisks) {
  VmSpec spec = vm_with_disks();
  spec.tpm = true;
  ASSERT_TRUE(check(spec));
  EXPECT_EQ(vm_spec_from_json(to_json(spec)).value(), spec);
  EXPECT_THAT(qemu_argv(spec, {.tap_fds = {},
                               .disks = {{.file = "/d/r", .image = "/i/d"}, {.file = "/d/d"}},
                               .tpm_fd = 9}),
              Contains("socket,id=tpm,fd=9"));
  spec.disks.clear();
  spec.kernel = "/k";
  EXPECT_FALSE(check(spec));
}

TEST(DiskArguments, AKernelIsBootedInstead) {
  VmSpec spec = vm_with_disks();
  spec.kernel = "/k";
  EXPECT_THAT(argv_of(spec), Not(Contains(HasSubstr("bootindex"))));
}

}  // namespace
}  // namespace godwit::qemu

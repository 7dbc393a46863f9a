#include "qemu/vm_spec.hh"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "qemu/argv.hh"
#include "qemu/nic_device.hh"

namespace godwit::qemu {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

VmSpec example() {
  VmSpec spec;
  spec.id = *VmId::parse("00112233445566778899aabbccddeeff");
  spec.name = "web1";
  spec.machine = "pc-q35-7.2";
  spec.kernel = "/images/vmlinuz";
  spec.initrd = "/images/initrd,v1";
  spec.append = "console=ttyS0 godwit.ip=10.9.0.2/24";
  const PortId port = *PortId::parse("a0000000000000000000000000000001");
  const PortId other = *PortId::parse("b0000000000000000000000000000002");
  spec.nics = {{port, "web1-eth0", default_mac(port)}, {other, "web1-eth1", default_mac(other)}};
  return spec;
}

TEST(VmSpec, SurvivesJson) {
  const VmSpec spec = example();
  const auto back = vm_spec_from_json(to_json(spec));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(*back, spec);
}

TEST(VmSpec, RefusesWhatIsWrongAndNamesIt) {
  const auto refusal = [](auto change) {
    VmSpec spec = example();
    change(spec);
    const auto result = vm_spec_from_json(to_json(spec));
    return result ? std::string("accepted") : result.error().text;
  };
  EXPECT_THAT(refusal([](VmSpec& s) { s.name = "Web 1"; }), HasSubstr("Web 1"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.memory = ByteCount{1}; }), HasSubstr("memory"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.memory.bytes += 1; }), HasSubstr("whole pages"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.cpus = 0; }), HasSubstr("cpus"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.cpu_model = "max,+vmx"; }), HasSubstr("CPU model"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.machine = "q35,x=y"; }), HasSubstr("machine"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.kernel = "vmlinuz"; }), HasSubstr("absolute"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.kernel = s.initrd = s.append = ""; }),
              HasSubstr("nothing to boot"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nics[1].mac = s.nics[0].mac; }), HasSubstr("twice"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nics[1].mac = "01:00:5e:00:00:01"; }),
              HasSubstr("unicast"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nics.resize(kMaxNics + 1, s.nics[0]); }),
              HasSubstr("most"));
}

VmSpec with_slots() {
  VmSpec spec = example();
  spec.nic_slots = kDefaultNicSlots;
  NicSpec uplink = spec.nics[1];
  uplink.port = *PortId::parse("c0000000000000000000000000000003");
  uplink.name = "web1-uplink";
  uplink.mac = default_mac(uplink.port);
  uplink.slot = 1;
  spec.nics.push_back(uplink);
  return spec;
}

TEST(VmSpec, ANicKeepsItsSlot) {
  const VmSpec spec = with_slots();
  const auto back = vm_spec_from_json(to_json(spec));
  ASSERT_TRUE(back) << back.error().text;
  EXPECT_EQ(*back, spec);
  auto before = to_json(example());
  before.erase("nic_slots");
  EXPECT_EQ(vm_spec_from_json(before).value().nic_slots, 0U);
}

TEST(VmSpec, ASlotTakesOneNicAndMustBeThere) {
  const auto refusal = [](auto change) {
    VmSpec spec = with_slots();
    change(spec);
    const auto result = check(spec);
    return result ? std::string("accepted") : result.error().text;
  };
  EXPECT_THAT(refusal([](VmSpec& s) { s.nic_slots = kMaxNicSlots + 1; }), HasSubstr("most"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nic_slots = 1; }), HasSubstr("slot 1 of 1"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nics[1].slot = 1; }), HasSubstr("two NICs"));
  EXPECT_THAT(refusal([](VmSpec& s) { s.nics[0].slot = 0; }), HasSubstr("must come before"));
}

TEST(VmSpec, HostileJsonIsAnErrorNotACrash) {
  for (const char* text : {"[]", "{}", "3", R"({"id": 1})",
                           R"({"id":"00112233445566778899aabbccddeeff","accelerator":"tcg",
                               "nics":[3]})"}) {
    EXPECT_FALSE(vm_spec_from_json(nlohmann::json::parse(text))) << text;
  }
}

TEST(QemuArgv, BuildsTheSameMachineAtSourceAndTarget) {
  const VmSpec spec = example();
  auto source = qemu_argv(spec, {.tap_fds = {5, 6}});
  auto target = qemu_argv(spec, {.tap_fds = {5, 6}, .incoming_fd = 7, .rescue_fd = 8});
  ASSERT_EQ(target.size(), source.size() + 7);
  EXPECT_THAT(source, Not(Contains("-incoming")));
  EXPECT_EQ(std::vector<std::string>(target.end() - 7, target.end()),
            (std::vector<std::string>{"-incoming", "defer", "-S", "-chardev",
                                      "socket,id=rescue,fd=8,server=on,wait=off", "-mon",
                                      "chardev=rescue,mode=control"}));
  target.resize(source.size());
  EXPECT_EQ(source, target);
}

TEST(QemuArgv, PinsEverythingThatMustMatch) {
  const auto argv = qemu_argv(example(), {.tap_fds = {5, 6}});
  EXPECT_THAT(argv, Contains("-nodefaults"));
  EXPECT_THAT(argv, Contains("00112233-4455-6677-8899-aabbccddeeff"));
  EXPECT_THAT(argv, Contains("Westmere-v1,enforce"));
  EXPECT_THAT(argv, Contains(HasSubstr("pc-q35-7.2,memory-backend=ram0")));
  EXPECT_THAT(argv, Contains("tap,id=net1,fd=6,vhost=off"));
  EXPECT_THAT(argv, Contains("virtio-net-pci,id=nic1,netdev=net1,mac=52:54:b0:00:00:00,"
                             "bus=pcie.0,addr=0x4,disable-legacy=on,romfile=,rx_queue_size=1024"));
  EXPECT_THAT(argv, Contains(HasSubstr("on,obsolete=deny")));
}

TEST(QemuArgv, ANicInASlotIsWhereItWasPluggedIn) {
  const auto argv = qemu_argv(with_slots(), {.tap_fds = {5, 6, 7}});
  EXPECT_THAT(argv, Contains("pcie-root-port,id=nic-slot0,bus=pcie.0,addr=0xb.0x0,multifunction=on,"
                             "chassis=1,port=0"));
  EXPECT_THAT(argv, Contains("pcie-root-port,id=nic-slot1,bus=pcie.0,addr=0xb.0x1,multifunction=on,"
                             "chassis=2,port=1"));
  EXPECT_THAT(argv, Contains("tap,id=net-slot1,fd=7,vhost=off"));
  EXPECT_THAT(argv, Contains("virtio-net-pci,id=nic-slot1-nic,netdev=net-slot1,"
                             "mac=52:54:c0:00:00:00,bus=nic-slot1,addr=0x0,disable-legacy=on,"
                             "romfile=,rx_queue_size=1024"));
  EXPECT_THAT(nic_device_ids(with_slots()), ElementsAre("nic0", "nic1", "nic-slot1-nic"));
}

TEST(QemuArgv, TheGuestAgentHasAChannelWhenAskedFor) {
  VmSpec spec = example();
  EXPECT_THAT(qemu_argv(spec, {.tap_fds = {5, 6}}), Not(Contains(HasSubstr("guest_agent"))));
  spec.guest_agent = true;
  EXPECT_EQ(vm_spec_from_json(to_json(spec)).value(), spec);
  const auto argv = qemu_argv(spec, {.tap_fds = {5, 6}, .guest_agent_fd = 7});
  EXPECT_THAT(argv, Contains("socket,id=agent,fd=7,server=on,wait=off"));
  EXPECT_THAT(argv, Contains(HasSubstr("name=org.qemu.guest_agent.0")));
}

TEST(QemuArgv, ACommaInAPathStaysInTheOption) {
  VmSpec spec = example();
  spec.image = "/images/a,b.raw";
  EXPECT_THAT(qemu_argv(spec, {.tap_fds = {5, 6}}),
              Contains(HasSubstr("filename=/images/a,,b.raw")));
}

}  // namespace
}  // namespace godwit::qemu

#include "qemu/host.hh"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/test_directory.hh"
#include "qemu/accelerator.hh"

namespace godwit::qemu {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Host, ThisQemuTellsWhatItCanRun) {
  const auto host = probe_host(Accelerator::tcg);
  ASSERT_TRUE(host) << host.error().text;
  EXPECT_THAT(newest_machine(*host), HasSubstr("pc-q35-"));
  ASSERT_TRUE(host->cpu_models.contains(std::string(kDefaultCpuModel)));
  // The reason for the default: TCG has every feature of it.
  EXPECT_THAT(host->cpu_models.at(std::string(kDefaultCpuModel)), ElementsAre());
  EXPECT_GT(host->memory_available.bytes, 0U);
  const auto back = host_capabilities_from_json(to_json(*host));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, *host);
}

TEST(Host, AMissingQemuIsAnError) {
  EXPECT_FALSE(probe_host(Accelerator::tcg, "/nonexistent/qemu"));
  EXPECT_FALSE(probe_host(Accelerator::tcg, "/bin/true"));
}

TEST(Host, RefusalsNameEachReason) {
  HostCapabilities host{.qemu_version = "7.2.0",
                        .accelerator = Accelerator::kvm,
                        .machines = {"pc-q35-7.1", "pc-q35-7.2", "pc-i440fx-7.2"},
                        .cpu_models = {{"Westmere-v1", {}}, {"Skylake", {"avx512f", "pku"}}},
                        .memory_total = {8ULL << 30},
                        .memory_available = {1ULL << 30}};
  EXPECT_EQ(newest_machine(host), "pc-q35-7.2");
  VmSpec spec;
  spec.name = "web1";
  spec.machine = "pc-q35-7.2";
  spec.accelerator = Accelerator::kvm;
  EXPECT_THAT(refusals(spec, host, "west"), ElementsAre());
  spec.accelerator = Accelerator::tcg;
  spec.machine = "pc-q35-9.0";
  spec.cpu_model = "Skylake";
  spec.memory = ByteCount{2ULL << 30};
  EXPECT_THAT(refusals(spec, host, "west"),
              ElementsAre(HasSubstr("west offers kvm"), HasSubstr("pc-q35-9.0"),
                          HasSubstr("lacks avx512f, pku"), HasSubstr("1 GiB of memory")));
  spec.cpu_model = "Unheard";
  EXPECT_THAT(refusals(spec, host, "west"), Contains(HasSubstr("does not know the CPU model")));
}

struct ProbeTest : ::testing::Test {
  // A stand-in for QEMU: a shell script.
  std::string script(const std::string& body) {
    const auto path = directory / "qemu";
    std::ofstream(path) << "#!/bin/sh\necho run >> " << (directory / "runs").string() << "\n"
                        << body << "\n";
    std::filesystem::permissions(path, std::filesystem::perms{0755});
    return path.string();
  }
  long runs() {
    std::ifstream file(directory / "runs");
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  }
  AcceleratorProbe probe(const std::string& body) {
    return {.kernel = "/dev/null",
            .cache_file = directory / "cache",
            .binary = script(body),
            .kvm_device = "/dev/null",
            .limit = seconds(5)};
  }
  const TestDirectory directory;
};

TEST_F(ProbeTest, AKernelThatBootsMeansKvmAndIsRemembered) {
  const auto input = probe("echo 'Linux version 6.1'");
  EXPECT_EQ(probe_accelerator(input).accelerator, Accelerator::kvm);
  EXPECT_EQ(probe_accelerator(input).accelerator, Accelerator::kvm);
  EXPECT_EQ(runs(), 1);
}

TEST_F(ProbeTest, AnotherQemuIsProbedAgain) {
  EXPECT_EQ(probe_accelerator(probe("echo 'Linux version 6.1'")).accelerator, Accelerator::kvm);
  const auto report = probe_accelerator(probe("echo nothing"));
  EXPECT_EQ(report.accelerator, Accelerator::tcg);
  EXPECT_EQ(runs(), 2);
}

TEST_F(ProbeTest, FallsBackWithTheReason) {
  auto hangs = probe("exec sleep 60");
  hangs.limit = milliseconds(50);
  EXPECT_THAT(probe_accelerator(hangs).notice, HasSubstr("longer than"));
  EXPECT_THAT(probe_accelerator(probe("echo 'no sse' >&2; exit 1")).notice, HasSubstr("no sse"));
  auto absent = probe("exit 1");
  absent.kvm_device = directory / "absent";
  EXPECT_THAT(probe_accelerator(absent).notice, HasSubstr("No such file"));
}

}  // namespace
}  // namespace godwit::qemu

#include "qemu/firmware.hh"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/test_directory.hh"

namespace godwit::qemu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class FirmwareTest : public testing::Test {
 protected:
  FirmwareTest() {
    for (const char* name : {"packages", "own"}) fs::create_directory(directory_ / name);
    for (const auto& [name, size] : {std::pair{"CODE", 3000}, {"OTHER", 4000}, {"VARS", 1024}}) {
      std::ofstream(directory_ / name) << std::string(static_cast<std::size_t>(size), 'x');
    }
  }
  json descriptor(const char* code) {
    return {{"interface-types", {"uefi"}},
            {"mapping",
             {{"device", "flash"},
              {"executable", {{"filename", directory_ / code}, {"format", "raw"}}},
              {"nvram-template", {{"filename", directory_ / "VARS"}, {"format", "raw"}}}}},
            {"targets", {{{"architecture", "x86_64"}, {"machines", {"pc-q35-*"}}}}},
            {"features", {"acpi-s3"}}};
  }
  void put(const std::string& path, const json& text) {
    std::ofstream(directory_ / path) << text.dump();
  }
  std::optional<Firmware> find(const char* machine = "pc-q35-7.2") {
    return find_uefi(machine, {directory_ / "packages", directory_ / "own", directory_ / "none"});
  }

  TestDirectory directory_;
};

TEST_F(FirmwareTest, TheFirstByNameThatFits) {
  EXPECT_FALSE(find());
  put("packages/60.json", descriptor("CODE"));
  put("packages/70.json", descriptor("OTHER"));
  const auto found = find();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->code, fs::path(directory_ / "CODE"));
  EXPECT_EQ(found->code_size.bytes, 3000U);
  EXPECT_EQ(found->variables_size.bytes, 1024U);
  EXPECT_FALSE(find("microvm"));
}

TEST_F(FirmwareTest, OneOfTheHostTakesThePlaceOfItsNamesake) {
  put("packages/60.json", descriptor("CODE"));
  put("own/60.json", descriptor("OTHER"));
  EXPECT_EQ(find()->code_size.bytes, 4000U);
}

TEST_F(FirmwareTest, WhatDoesNotFitOrIsDamagedIsPassedOver) {
  const auto without = [this](auto change) {
    json text = descriptor("CODE");
    change(text);
    put("packages/60.json", text);
    return !find();
  };
  EXPECT_TRUE(without([](json& text) { text["features"].push_back("requires-smm"); }));
  EXPECT_TRUE(without([](json& text) { text["interface-types"] = {"bios"}; }));
  EXPECT_TRUE(without([](json& text) { text["mapping"]["device"] = "memory"; }));
  EXPECT_TRUE(without([](json& text) { text["targets"][0]["architecture"] = "aarch64"; }));
  EXPECT_TRUE(without([](json& text) { text["mapping"]["executable"]["filename"] = "/none"; }));
  EXPECT_TRUE(without([](json& text) { text["mapping"].erase("nvram-template"); }));
  EXPECT_TRUE(without([](json& text) { text["targets"] = 7; }));
  EXPECT_TRUE(without([](json& text) { text = json::array({1, "uefi"}); }));
  std::ofstream(directory_ / "packages/60.json") << "{ this is no JSON";
  EXPECT_FALSE(find());
}

}  // namespace
}  // namespace godwit::qemu

// Unplugging, from a QEMU that the test plays; plugging needs a real one (real_qemu_test.cc).
#include "qemu/nic_plug.hh"

#include <gmock/gmock.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "os/memory_stream.hh"
#include "os/test_wait.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const NicSpec kNic{.port = {}, .name = "uplink", .mac = "52:54:00:00:00:05", .slot = 1};

struct NicUnplugTest : ::testing::Test {
  NicUnplugTest() {
    stream->start({.readable = [this] { serve(); }, .writable = {}, .closed = {}});
    say({{"QMP", json::object()}});
  }
  void serve() {
    std::array<std::byte, 4096> chunk;
    while (const std::size_t count = stream->read(chunk)) {
      input += as_text(BytesView(chunk).first(count));
    }
    for (std::size_t end = 0; (end = input.find('\n')) != std::string::npos;) {
      const json request = json::parse(input.substr(0, end));
      input.erase(0, end + 1);
      const std::string command = request.at("execute");
      json reply = answer(command);
      reply["id"] = request.at("id");
      say(reply);
      if (command != "qom-list" && command != "qmp_capabilities") commands.push_back(command);
      if (command == "device_del" && !event.empty()) {
        say({{"event", event}, {"data", {{"device", "nic-slot1-nic"}}}});
      }
    }
  }
  json answer(const std::string& command) {
    if (command == "device_del") {
      if (++asked > 1 && refusal.empty()) {
        return {{"error", {{"desc", "Device nic-slot1-nic is already in the process of unplug"}}}};
      }
      if (!refusal.empty()) return {{"error", {{"desc", refusal}}}};
    }
    if (command == "qom-list" && asked < leaves_after) {
      return {{"return", {{{"name", "nic-slot1-nic"}, {"type", "child<virtio-net-pci>"}}}}};
    }
    return {{"return", json::array()}};
  }
  void say(const json& object) { stream->write(as_bytes(object.dump() + "\n")); }

  std::string unplug(Nanoseconds limit = kUnplugLimit) {
    std::optional<std::string> end;
    unplugging = std::make_unique<NicUnplug>(
        qmp, kNic, [&](const Result<>& got) { end = got ? "out" : got.error().text; }, limit);
    EXPECT_TRUE(os::run_until(loop, [&] { return link.settle(), end.has_value(); }));
    return end.value_or("nothing");
  }

  os::Loop loop;
  os::MemoryLink link;
  std::unique_ptr<os::ByteStream> stream = link.take_b();
  std::string input;
  std::vector<std::string> commands;
  int asked = 0, leaves_after = 1000;
  std::string refusal, event;
  std::unique_ptr<NicUnplug> unplugging;
  Qmp qmp{loop, link.take_a(), "web",
          Qmp::Events{.ready = {},
                      .event = [this](const QmpEvent& got) { unplugging->on_event(got); },
                      .closed = {}}};
};

TEST_F(NicUnplugTest, TheEventTellsThatTheGuestLetGo) {
  event = "DEVICE_DELETED";
  EXPECT_EQ(unplug(), "out");
  EXPECT_THAT(commands, ElementsAre("device_del", "netdev_del"));
}

TEST_F(NicUnplugTest, AGuestThatDidNotHearIsAskedAgain) {
  leaves_after = 2;
  EXPECT_EQ(unplug(), "out");
  EXPECT_THAT(commands, ElementsAre("device_del", "device_del", "netdev_del"));
}

TEST_F(NicUnplugTest, OneThatIsOutAlreadyIsNoError) {
  leaves_after = 0;
  refusal = "Device 'nic-slot1-nic' not found";
  EXPECT_EQ(unplug(), "out");
}

TEST_F(NicUnplugTest, AGuestThatKeepsItIsWaitedForWithALimit) {
  EXPECT_THAT(unplug(milliseconds(300)), HasSubstr("has not let go"));
  EXPECT_THAT(commands, ElementsAre("device_del", "device_del"));
}

TEST_F(NicUnplugTest, ARefusalIsTold) {
  refusal = "device_del not allowed while migrating";
  EXPECT_THAT(unplug(), HasSubstr("uplink from slot 1: device_del of vm web: device_del not"));
  event = "DEVICE_UNPLUG_GUEST_ERROR";
  refusal.clear();
  EXPECT_THAT(unplug(), HasSubstr("the guest refuses"));
}

TEST_F(NicUnplugTest, NothingIsSaidAfterItsEnd) {
  bool said = false;
  unplugging = std::make_unique<NicUnplug>(qmp, kNic, [&](const Result<>&) { said = true; });
  unplugging.reset();
  link.settle();
  EXPECT_FALSE(said);
}

}  // namespace
}  // namespace godwit::qemu

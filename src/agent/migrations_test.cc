// What the journal of another time, or another agent's requests, must not do to this host's vms.
#include "agent/migrations.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/host_testing.hh"
#include "agent/state_message.hh"
#include "os/wall_clock.hh"

namespace godwit::agent {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class MigrationsTest : public HostTest {
 protected:
  MigrationsTest() : HostTest("/nonexistent/godwit-migrations-test") {
    spec_.id = an_id<VmId>(1);
    spec_.name = "web";
    spec_.machine = "pc-q35-7.2";
    spec_.kernel = "/boot/vmlinuz";
    spec_.nics.push_back({.port = an_id<PortId>(2), .name = "web0", .mac = "52:54:00:00:00:01"});
  }

  // A vm of this host; `arriving`: the migration that brings it and has not let it run yet.
  void have_vm(std::optional<MigrationId> arriving = {}) {
    store_->put("vm", "web",
                to_json(VmRecord{.spec = spec_,
                                 .process = {.pid = 1, .start_time = 77},
                                 .stopped = "for this test",
                                 .arriving = arriving}));
  }
  bool has_vm() { return store_->find("vm", "web").has_value(); }

  void remember_target(migrate::TargetState state) {
    store_->put("migration-target", kMove.text(),
                to_json(TargetRecord{.id = kMove,
                                     .from = "e1",
                                     .state = state,
                                     .reason = {},
                                     .started = 1,
                                     .spec = spec_,
                                     .ports = Json::array(),
                                     .epoch = 2}));
  }

  Result<Json> ask(const std::string& method, const Json& body) {
    Result<Json> answer = fail("not answered");
    host_.migrations.on_request({.peer = "e1",
                                 .method = method,
                                 .answer = [&](const Result<Json>& given) { answer = given; }},
                                body);
    return answer;
  }

  Json prepare_request() const {
    PortRecord port;
    port.id = spec_.nics[0].port;
    port.name = "web0";
    return {{"id", kMove.text()},
            {"spec", qemu::to_json(spec_)},
            {"epoch", 2},
            {"ports", Json::array({{{"port", to_json(port)}}})}};
  }

  static inline const MigrationId kMove = an_id<MigrationId>(8);
  qemu::VmSpec spec_;
};

TEST_F(MigrationsTest, ARefusedMoveOfLongAgoLeavesTheVmThatCameLater) {
  have_vm();
  remember_target(migrate::TargetState::refused);
  host_.migrations.start();
  EXPECT_TRUE(has_vm());
}

TEST_F(MigrationsTest, AnInterruptedMoveTakesItsWaitingGuestWithIt) {
  have_vm(kMove);
  remember_target(migrate::TargetState::preparing);
  host_.migrations.start();
  EXPECT_FALSE(has_vm());
}

TEST_F(MigrationsTest, AnOwnersEntryOfLongAgoDoesNotRunTheVmThatArrivesNow) {
  have_vm(an_id<MigrationId>(9));
  remember_target(migrate::TargetState::owner);
  host_.migrations.start();
  EXPECT_TRUE(host_.vms.is_arriving("web", an_id<MigrationId>(9)));
  EXPECT_FALSE(store_->find("port", spec_.nics[0].port.text())) << "its port is not ours yet";
}

TEST_F(MigrationsTest, ADrainingMoveLeavesTheVmThatHasReturned) {
  have_vm();
  SourceRecord record;
  record.id = kMove;
  record.vm = "web";
  record.to = "e1";
  record.epoch = 2;
  record.state = migrate::SourceState::draining;
  record.process = {.pid = 1, .start_time = 33};  // an earlier QEMU of the same pid
  store_->put("migration-source", kMove.text(), to_json(record));
  host_.migrations.start();
  EXPECT_TRUE(has_vm());
}

// Two that were accepted by an agent which ended before their time, or when it had come.
class WaitingGroupTest : public MigrationsTest {
 protected:
  void remember(std::int64_t begins_at, bool resume = true) {
    for (const std::size_t index : {0UL, 1UL}) {
      SourceRecord record;
      record.id = an_id<MigrationId>(static_cast<unsigned char>(20 + index));
      record.vm = "component/sw" + std::to_string(index);
      record.component = an_id<ComponentId>(static_cast<unsigned char>(20 + index));
      record.to = "e1";
      record.resume = resume;
      record.begins_at = begins_at;
      record.group = GroupPlace{.id = kGroup, .index = index, .of = 2, .in_order = true};
      store_->put("component-source", record.id.text(), to_json(record));
    }
    host_.migrations.start();
  }
  std::vector<SourceRecord> records() {
    std::vector<SourceRecord> all;
    for (const auto& document : store_->list("component-source")) {
      all.push_back(source_record(document.body));
    }
    return all;
  }

  static inline const MigrationId kGroup = an_id<MigrationId>(30);
};

TEST_F(WaitingGroupTest, WaitsForItsTimeAfterARestart) {
  remember(os::wall_clock_seconds() + 3600, false);
  loop_.run_once(milliseconds(1));
  const Json group = *host_.migrations.show(kGroup.text());
  EXPECT_EQ(group["state"], "planned");
  EXPECT_EQ(group["in_order"], true);
  EXPECT_EQ(group["members"].size(), 2U);
  EXPECT_TRUE(host_.migrations.is_moving("component/sw1"));
  EXPECT_TRUE(host_.migrations.abort(kGroup.text()));
  EXPECT_EQ(host_.migrations.show(kGroup.text())->at("state"), "aborted");
}

// There is nothing to move, and nobody to move it to: it ends, and has been begun.
TEST_F(WaitingGroupTest, BeginsWhenItsTimeComes) {
  remember(os::wall_clock_seconds() + 1, false);
  EXPECT_EQ(host_.migrations.show(kGroup.text())->at("state"), "planned");
  const auto begun = [this] {
    return host_.migrations.show(kGroup.text())->at("members")[0]["reason"] ==
           "the component is gone";
  };
  while (!begun()) loop_.run_once(milliseconds(100));
}

TEST_F(WaitingGroupTest, WhoseTimeHasComeMeanwhileGoesOnIfThatIsWished) {
  remember(os::wall_clock_seconds() - 1);
  for (const SourceRecord& record : records()) {
    EXPECT_EQ(record.state, migrate::SourceState::aborted);
    EXPECT_TRUE(goes_on(record)) << record.vm;
    EXPECT_LT(record.begins_at, os::wall_clock_seconds()) << "which is at once";
  }
}

TEST_F(WaitingGroupTest, WhoseTimeHasComeMeanwhileEndsElse) {
  remember(os::wall_clock_seconds() - 1, false);
  for (const SourceRecord& record : records()) EXPECT_FALSE(goes_on(record)) << record.vm;
}

TEST_F(MigrationsTest, AMoveThatClashesWithOurVmIsRefusedAndLeavesIt) {
  have_vm();
  const auto answer = ask("migration.prepare", prepare_request());
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().text, HasSubstr("has a vm 'web' of its own"));
  EXPECT_TRUE(has_vm());
}

TEST_F(MigrationsTest, OnAFullDiskAMoveIsRefusedAndNothingIsLeft) {
  disk_->is_full = true;
  const auto answer = ask("migration.prepare", prepare_request());
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().text, HasSubstr("disk is full"));
  EXPECT_FALSE(has_vm());
  disk_->is_full = false;
  EXPECT_TRUE(store_->catch_up());
  EXPECT_TRUE(store_->list("migration-target").empty());
}

TEST_F(MigrationsTest, AnUnknownMigrationIsNoRefusal) {
  const auto answer = ask("migration.commit", {{"id", kMove.text()}});
  ASSERT_FALSE(answer);
  EXPECT_THAT(answer.error().text, HasSubstr("does not know"));
  EXPECT_TRUE(ask("migration.abort", {{"id", kMove.text()}})) << "nothing is left to abort";
}

// ---- components ----

// The address of a station at port 3.
const Bytes kState = from_hex("01000201000000000e0000000302000000000a000005dc");

class ComponentMigrationsTest : public MigrationsTest {
 protected:
  void prepare() {
    Json ports = Json::array();
    for (int i = 1; i <= 4; ++i) ports.push_back({{"name", std::to_string(i)}});
    auto component = fabric::new_component({{"name", "sw1"}, {"type", "switch"}, {"ports", ports}});
    Json described = Json::array();
    for (fabric::ComponentPort& port : component->ports) {
      port.id = an_id<PortId>(static_cast<unsigned char>(40 + port.index));
      PortRecord record;
      record.id = port.id;
      record.kind = PortKind::component;
      record.name = "sw1-" + port.name;
      described.push_back({{"port", to_json(record)}});
    }
    component->id = an_id<ComponentId>(3);
    // Answered when its ports are ready, or it is over.
    host_.migrations.on_request(
        {.peer = "e1", .method = "component.prepare", .answer = [](const Result<Json>&) {}},
        {{"id", kMove.text()},
         {"component", fabric::to_json(*component)},
         {"ports", described},
         {"epoch", 2}});
  }
  Result<Json> tell(std::uint64_t number, const std::optional<std::string>& hex = {}) {
    Json body = {{"id", kMove.text()}, {"number", number}, {"last", false}};
    if (hex) body["state"] = *hex;
    return ask("component.state", body);
  }
  std::string target_state() { return host_.migrations.show(kMove.text())->at("state"); }
};

TEST_F(ComponentMigrationsTest, StateComesInPushes) {
  prepare();
  StatePacker packer(kMove);
  const Bytes first = packer.pack(1, kState), second = packer.pack(2, kState);
  host_.migrations.on_state("e1", first);
  EXPECT_TRUE(tell(1));
  EXPECT_TRUE(tell(1)) << "told again: it is taken once";
  host_.migrations.on_state("c1", second);  // of somebody else
  host_.migrations.on_state("e1", second);
  EXPECT_TRUE(tell(2));
  EXPECT_EQ(target_state(), "copying");
}

TEST_F(ComponentMigrationsTest, AnOlderSourceSendsItInHex) {
  prepare();
  EXPECT_TRUE(tell(1, to_hex(kState)));
  EXPECT_TRUE(tell(2, ""));
  EXPECT_EQ(target_state(), "copying");
  EXPECT_FALSE(tell(3, to_hex(Bytes(kMostStateBytes + 1))));
  EXPECT_EQ(target_state(), "aborted");
}

TEST_F(ComponentMigrationsTest, AMoveEndsWithAPushThatHasNotCome) {
  prepare();
  EXPECT_FALSE(tell(1));
  EXPECT_EQ(target_state(), "aborted");
}

TEST_F(ComponentMigrationsTest, AMoveEndsWithAPushThatIsDamaged) {
  prepare();
  Bytes body = StatePacker(kMove).pack(1, kState);
  body[30] ^= std::byte{0xff};
  host_.migrations.on_state("e1", body);
  EXPECT_FALSE(tell(1));
  EXPECT_EQ(target_state(), "aborted");
}

TEST_F(ComponentMigrationsTest, HostilePushesAreDropped) {
  prepare();
  host_.migrations.on_state("e1", {});
  host_.migrations.on_state("e1", Bytes(27, std::byte{0}));
  host_.migrations.on_state("e1", Bytes(1 << 20, std::byte{0xff}));
  host_.migrations.on_state("e1", StatePacker(an_id<MigrationId>(99)).pack(1, kState));
  host_.migrations.on_state("e1", StatePacker(kMove).pack(1, kState));
  EXPECT_TRUE(tell(1)) << "what came before has done no harm";
}

TEST_F(MigrationsTest, HostileRequestsAreAnsweredNotThrown) {
  const std::vector<Json> hostile = {nullptr,       true, -1, 1e300, "", Json::array({1, "x"}),
                                     Json::object()};
  for (const char* method : {"migration.prepare", "migration.preflight", "migration.failed",
                             "migration.commit", "migration.after", "migration.nonsense",
                             "component.prepare", "component.state", "component.failed"}) {
    for (const Json& value : hostile) {
      EXPECT_NO_THROW((void)ask(method, value)) << method << value.dump();
    }
  }
  unsigned char serial = 100;
  const auto refuses = [&](const std::string& pointer, const Json& value) {
    Json body = prepare_request();
    body["id"] = an_id<MigrationId>(serial++).text();
    body[Json::json_pointer(pointer)] = value;
    EXPECT_FALSE(ask("migration.prepare", body)) << body.dump();
  };
  for (const Json& value : hostile) {
    for (const char* at : {"/spec", "/epoch", "/ports", "/ports/0", "/ports/0/port",
                           "/ports/0/wire", "/ports/0/port/id", "/ports/0/port/kind"}) {
      refuses(at, value);
    }
  }
  EXPECT_FALSE(has_vm());
}

TEST_F(MigrationsTest, HostileNetworkRequestsAreAnsweredNotThrown) {
  for (const char* method :
       {"port.find", "wire.attach", "wire.connect", "wire.detach", "wire.check", "nonsense"}) {
    for (const Json& body : {Json(nullptr), Json(1), Json("x"), Json::array({1}),
                             Json{{"wires", 3}, {"id", 1}, {"name", false}, {"a", -1}},
                             Json{{"wires", {1, "x", nullptr}}, {"id", std::string(32, 'f')}}}) {
      EXPECT_NO_THROW(host_.network.on_request(
          {.peer = "e1", .method = method, .answer = [](const Result<Json>&) {}}, body))
          << method << body.dump();
    }
  }
}

}  // namespace
}  // namespace godwit::agent

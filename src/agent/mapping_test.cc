// What a host publishes in an etcd that is played in memory.
#include "agent/mapping.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace godwit::agent {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kMapping = "/godwit/mapping/default/10.1.0.5";
constexpr const char* kEpoch = "/godwit/epoch/default/10.1.0.5";
constexpr const char* kName = "/skydns/example/fleet/web";

struct PlayedEtcd {
  etcd::Found found;
  std::int64_t revision = 1;
  bool is_up = true;
  std::size_t asked = 0, written = 0;
  std::function<void()> before_write = [] {};

  void put(const std::string& key, const std::string& text) {
    found[key] = {.text = text, .revision = ++revision};
  }
};

class PlayedKeys final : public etcd::Keys {
 public:
  PlayedKeys(os::Loop& loop, PlayedEtcd& etcd) : loop_(loop), etcd_(etcd) {}
  void read(const std::vector<std::string>& keys, Answer<etcd::Found> answer) override {
    ++etcd_.asked;
    later(std::move(answer), [this, keys] {
      etcd::Found some;
      for (const auto& key : keys) {
        if (etcd_.found.contains(key)) some[key] = etcd_.found[key];
      }
      return some;
    });
  }
  void list(const std::string& prefix, std::size_t, Answer<etcd::Found> answer) override {
    later(std::move(answer), [this, prefix] {
      etcd::Found some;
      for (const auto& [key, value] : etcd_.found) {
        if (key.starts_with(prefix)) some[key] = value;
      }
      return some;
    });
  }
  void write(const etcd::Write& write, Answer<bool> answer) override {
    later(std::move(answer), [this, write] {
      std::exchange(etcd_.before_write, [] {})();
      for (const auto& [key, revision] : write.unchanged) {
        const auto at = etcd_.found.find(key);
        if ((at == etcd_.found.end() ? 0 : at->second.revision) != revision) return false;
      }
      ++etcd_.revision;
      ++etcd_.written;
      for (const auto& [key, value] : write.changes) {
        if (value) etcd_.found[key] = {.text = *value, .revision = etcd_.revision};
        if (!value) etcd_.found.erase(key);
      }
      return true;
    });
  }

 private:
  template <class T>
  void later(Answer<T> answer, std::function<T()> what) {
    loop_.post([this, answer = std::move(answer), what = std::move(what)]() mutable {
      answer(etcd_.is_up ? Result<T>(what()) : fail("etcd is away"));
    });
  }
  template <class T, class F>
  void later(Answer<T> answer, F what) {
    later(std::move(answer), std::function<T()>(std::move(what)));
  }
  os::Loop& loop_;
  PlayedEtcd& etcd_;
};

struct MappingTest : testing::Test {
  struct Host {
    Host(MappingTest& test, const std::string& its)
        : loop(test.loop), etcd(test.etcd), name(its), site(its + "-site") {
      config.dns_domain = "fleet.example";
    }
    void start() {
      mappings.reset();
      mappings.emplace(
          Mappings::Context{.loop = loop,
                            .host = name,
                            .site = site,
                            .config = config,
                            .store = *store,
                            .guests =
                                [this](const auto&) {
                                  std::vector<LocatedGuest> guests;
                                  for (const auto& [record, vm] : uplinks) {
                                    guests.push_back(
                                        {.uplink = &record, .vm = vm, .is_elsewhere = vm.empty()});
                                  }
                                  return guests;
                                }},
          is_configured ? std::make_unique<PlayedKeys>(loop, etcd) : nullptr,
          MappingPatience{.settle = milliseconds(1),
                          .retry = milliseconds(5),
                          .most_retry = milliseconds(20),
                          .check = check,
                          .left = left});
      mappings->start();
    }
    void have(Epoch epoch, std::optional<const char*> now, const char* vm = "web") {
      PortRecord record;
      record.id.bytes[0] = std::byte{1};
      record.name = "uplink";
      record.kind = PortKind::uplink;
      record.epoch = epoch;
      record.guest = {{.address = parse_ip("10.1.0.5").value()}};
      if (now) record.guest[0].new_address = parse_ip(*now).value();
      uplinks = {{record, vm}};
      if (mappings) mappings->look_soon();
    }
    void leave() {
      uplinks.clear();
      mappings->look_soon();
    }
    json list(const std::string& tenant = {}) {
      std::optional<json> told;
      mappings->list(tenant, [&](json list) { told = std::move(list); });
      while (!told) loop.run_once(milliseconds(10));
      return *told;
    }
    os::Loop& loop;
    PlayedEtcd& etcd;
    std::string name, site;
    MappingConfig config;
    std::unique_ptr<store::Store> store = store::make_memory_store();
    std::vector<std::pair<PortRecord, std::string>> uplinks;
    bool is_configured = true;
    Nanoseconds check = seconds(60), left = seconds(60);
    std::optional<Mappings> mappings;
  };

  bool until(const std::function<bool()>& done) {
    const Instant limit = loop.now() + seconds(5);
    while (!done() && loop.now() < limit) loop.run_once(milliseconds(5));
    return done();
  }
  void run_for(Nanoseconds time) {
    const Instant limit = loop.now() + time;
    while (loop.now() < limit) loop.run_once(milliseconds(1));
  }
  json mapping() {
    return etcd.found.contains(kMapping) ? json::parse(etcd.found[kMapping].text) : json();
  }
  std::string name() { return etcd.found.contains(kName) ? etcd.found[kName].text : ""; }

  os::Loop loop;
  PlayedEtcd etcd;
  Host h1{*this, "h1"}, f1{*this, "f1"};
};

TEST_F(MappingTest, AGuestThatLeavesAndComesHome) {
  h1.have(1, {});
  h1.start();
  f1.start();
  ASSERT_TRUE(until([&] { return name() == R"({"host":"10.1.0.5","ttl":30})"; }));
  EXPECT_TRUE(mapping().is_null());
  f1.have(2, "10.2.0.9");
  h1.leave();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  EXPECT_EQ(mapping()["mobile"], "10.2.0.9");
  EXPECT_EQ(mapping()["holder"], "f1");
  EXPECT_EQ(mapping()["site"], "f1-site");
  EXPECT_EQ(name(), R"({"host":"10.2.0.9","ttl":30})");
  const auto listed = h1.list();
  ASSERT_EQ(listed["mappings"].size(), 1U) << listed;
  EXPECT_EQ(listed["mappings"][0]["published"], true);
  h1.have(3, {});
  f1.leave();
  ASSERT_TRUE(until([&] { return mapping().is_null() && !name().empty(); }));
  EXPECT_EQ(name(), R"({"host":"10.1.0.5","ttl":30})");
  EXPECT_THAT(h1.list()["mappings"], IsEmpty());
  run_for(milliseconds(60));
  EXPECT_TRUE(f1.store->list("mapping").empty()) << "it is its next host's";
}

TEST_F(MappingTest, EtcdThatIsAwayIsToldLater) {
  f1.start();
  etcd.is_up = false;
  f1.have(2, "10.2.0.9");
  ASSERT_TRUE(until([&] { return etcd.asked > 2; }));
  auto listed = f1.list();
  EXPECT_EQ(listed["etcd"]["trouble"], "etcd is away");
  ASSERT_EQ(listed["mappings"].size(), 1U);
  EXPECT_EQ(listed["mappings"][0]["published"], false);
  EXPECT_LT(etcd.asked, 20U) << "it backs off";
  etcd.is_up = true;
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  listed = f1.list();
  EXPECT_FALSE(listed["etcd"].contains("trouble")) << listed;
  EXPECT_EQ(listed["mappings"][0]["published"], true);
}

TEST_F(MappingTest, AnOlderEpochNeverReplacesANewerOne) {
  f1.have(2, "10.2.0.9");
  // It is written between what f1 reads and writes.
  etcd.before_write = [&] {
    etcd.put(kEpoch, R"({"epoch":3,"holder":"y1","port":"01000000000000000000000000000000"})");
    etcd.put(kMapping, R"({"home":"10.1.0.5","holder":"y1"})");
  };
  f1.start();
  run_for(milliseconds(100));
  EXPECT_EQ(mapping()["holder"], "y1");
  EXPECT_EQ(etcd.written, 0U);
  EXPECT_EQ(f1.list()["mappings"].size(), 1U) << "etcd's only";
  f1.have(4, "10.2.0.10");
  ASSERT_TRUE(until([&] { return mapping()["holder"] == "f1"; }));
}

TEST_F(MappingTest, AfterARestartAllIsComparedAgain) {
  f1.have(2, "10.2.0.9");
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  const json before = mapping();
  const auto written = etcd.written;
  f1.start();
  run_for(milliseconds(50));
  EXPECT_EQ(etcd.written, written) << "it is as it was";
  etcd.found.clear();
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  EXPECT_EQ(mapping(), before) << "also since when";
  // Its port goes while the agent is away, or etcd.
  etcd.is_up = false;
  f1.uplinks.clear();
  f1.mappings->port_removed("uplink");
  run_for(milliseconds(20));
  f1.start();
  etcd.is_up = true;
  ASSERT_TRUE(until([&] { return etcd.found.empty(); }));
  EXPECT_TRUE(f1.store->list("mapping").empty());
}

TEST_F(MappingTest, APortThatGoesWhileItIsPublishedIsTakenBack) {
  f1.have(2, "10.2.0.9");
  etcd.before_write = [&] {
    f1.uplinks.clear();
    f1.mappings->port_removed("uplink");
  };
  f1.start();
  ASSERT_TRUE(until([&] { return etcd.written == 2; }));
  EXPECT_TRUE(etcd.found.empty());
  EXPECT_TRUE(f1.store->list("mapping").empty());
}

TEST_F(MappingTest, WhatNobodyTakesOverIsTakenBackInTheEnd) {
  f1.left = milliseconds(200);
  f1.have(2, "10.2.0.9");
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  f1.leave();
  run_for(milliseconds(80));
  EXPECT_TRUE(mapping().is_object());
  ASSERT_TRUE(until([&] { return etcd.found.empty(); }));
}

TEST_F(MappingTest, EtcdIsLookedAtNowAndThen) {
  f1.check = milliseconds(30);
  f1.have(2, "10.2.0.9");
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  etcd.found.clear();  // somebody restored an older backup
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
}

TEST_F(MappingTest, ItsNameIsKnownWhenItHasGoneOnByWire) {
  f1.have(2, "10.2.0.9");
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  f1.have(2, "10.2.0.10", "");
  ASSERT_TRUE(until([&] { return mapping()["mobile"] == "10.2.0.10"; }));
  EXPECT_EQ(mapping()["vm"], "web");
  EXPECT_THAT(name(), HasSubstr("10.2.0.10"));
}

TEST_F(MappingTest, WithoutEtcdAHostTellsWhatItKnows) {
  f1.is_configured = false;
  f1.have(2, "10.2.0.9");
  f1.start();
  const auto listed = f1.list();
  EXPECT_EQ(listed["etcd"]["configured"], false);
  ASSERT_EQ(listed["mappings"].size(), 1U);
  EXPECT_THAT(f1.list("red")["mappings"], IsEmpty());
  EXPECT_TRUE(f1.store->list("mapping").empty());
  f1.leave();
  run_for(milliseconds(20));
  EXPECT_THAT(f1.list()["mappings"], IsEmpty());
}

TEST_F(MappingTest, ATenantSeesItsOwn) {
  f1.have(2, "10.2.0.9");
  f1.start();
  ASSERT_TRUE(until([&] { return mapping().is_object(); }));
  etcd.put("/godwit/mapping/red/10.1.0.7", R"({"home":"10.1.0.7","tenant":"default"})");
  etcd.put("/godwit/mapping/red/garbage", "?");
  const auto red = f1.list("red");
  ASSERT_EQ(red["mappings"].size(), 1U) << red;
  EXPECT_EQ(red["mappings"][0]["home"], "10.1.0.7");
  EXPECT_EQ(red["mappings"][0]["tenant"], "red");
  EXPECT_EQ(f1.list()["mappings"].size(), 2U);
}

}  // namespace
}  // namespace godwit::agent

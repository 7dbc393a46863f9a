#pragma once
// For tests of moves: the parts of an agent, on a host that is not changed, in a fleet where nobody
// answers.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/host_parts.hh"

namespace godwit::agent {

// Nobody answers, and nobody can be reached, unless there is a session: with an agent of old.
class SilentPeers final : public Peers {
 public:
  const std::string& self() const override { return self_; }
  bool is_up(const std::string&) const override { return has_session; }
  std::vector<std::string> up() const override { return {}; }
  Nanoseconds rtt(const std::string&) const override { return {}; }
  unsigned protocol(const std::string&) const override { return 0; }
  void request(const std::string&, const std::string&, const nlohmann::json&, Reply reply,
               Nanoseconds) override {
    reply(fail("nobody is there"));
  }
  Result<> push(const std::string&, const std::string&, BytesView) override { return {}; }
  void open_lane(const std::string&, LaneReady ready) override { ready(fail("nobody is there")); }

  bool has_session = false;

 private:
  std::string self_ = "w1";
};

template <class AnId>
AnId an_id(unsigned char last) {
  AnId id;
  id.bytes[15] = std::byte{last};
  return id;
}

class HostTest : public testing::Test {
 protected:
  explicit HostTest(const std::filesystem::path& run_dir) : config_(config_in(run_dir)) {}

  static Config config_in(const std::filesystem::path& run_dir) {
    Config config;
    config.name = "w1";
    config.run_dir = run_dir;
    return config;
  }

  Config config_;
  os::Loop loop_;
  std::shared_ptr<store::MemoryDisk> disk_ = std::make_shared<store::MemoryDisk>();
  std::unique_ptr<store::Store> store_ = store::open_on(disk_);
  Events events_;
  SilentPeers peers_;
  HostParts host_{{.loop = loop_,
                   .config = config_,
                   .store = *store_,
                   .peers = peers_,
                   .events = events_,
                   .hosts_called = [](auto&&) { return std::vector<std::string>(); },
                   .wire_control = [](auto&&...) {}}};
};

}  // namespace godwit::agent

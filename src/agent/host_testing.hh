#pragma once
// For tests of moves: the parts of an agent, on a host that is not changed, in a fleet where nobody
// answers.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/components.hh"
#include "agent/contents.hh"
#include "agent/relocations.hh"
#include "agent/replicas.hh"
#include "agent/source_move.hh"

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
  explicit HostTest(std::filesystem::path run_dir) {
    config_.name = "w1";
    config_.run_dir = std::move(run_dir);
    network_.use_peers(peers_);
  }
  SourceMove::Context context() {
    return {.loop = loop_,
            .config = config_,
            .store = *store_,
            .network = network_,
            .components = components_,
            .vms = vms_,
            .disks = disks_,
            .replicas = replicas_,
            .known = known_,
            .contents = contents_,
            .volumes = volumes_,
            .relocations = relocations_,
            .peers = peers_,
            .events = events_};
  }

  Config config_;
  os::Loop loop_;
  std::shared_ptr<store::MemoryDisk> disk_ = std::make_shared<store::MemoryDisk>();
  std::unique_ptr<store::Store> store_ = store::open_on(disk_);
  Events events_;
  SilentPeers peers_;
  WireThreads wires_{loop_, "w1", {}, {.control = [](auto&&...) {}, .event = [](auto&&...) {}}};
  Network network_{loop_, config_, *store_, wires_, events_};
  Components components_{loop_, config_, *store_, network_, wires_, events_};
  Images images_{loop_, config_, *store_, events_};
  Disks disks_{config_, *store_, images_};
  Vms vms_{loop_, config_, *store_, network_, disks_, events_};
  static std::vector<std::string> no_hosts(const std::string&) { return {}; }
  Replicas replicas_{{.loop = loop_,
                      .config = config_,
                      .store = *store_,
                      .vms = vms_,
                      .disks = disks_,
                      .peers = peers_,
                      .events = events_},
                     no_hosts};
  KnownMemory known_{loop_, Bytes(crypto::KeyedHash::kKeySize), ByteCount{0}};
  Contents contents_{loop_, config_, Bytes(crypto::KeyedHash::kKeySize), images_, disks_};
  Volumes volumes_{loop_, config_};
  DeviceDriver device_{loop_, config_, *store_, events_};
  Fabrics fabrics_{*store_, peers_, events_};
  EndpointParts endpoint_{{.loop = loop_,
                           .config = config_,
                           .store = *store_,
                           .network = network_,
                           .peers = peers_,
                           .device = device_,
                           .fabrics = fabrics_,
                           .events = events_}};
  Relocations relocations_{{.loop = loop_,
                            .config = config_,
                            .store = *store_,
                            .network = network_,
                            .peers = peers_,
                            .device = device_,
                            .events = events_},
                           fabrics_,
                           endpoint_};
};

}  // namespace godwit::agent

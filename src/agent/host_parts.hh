#pragma once
// What an agent has of its host, each part after those that it uses. Above them are the fleet, by
// which other hosts ask them, and the API (main.cc).
#include "agent/contents.hh"
#include "agent/fabrics.hh"
#include "agent/mapping.hh"
#include "agent/migrations.hh"
#include "agent/recording.hh"
#include "agent/relocations.hh"
#include "agent/replicas.hh"
#include "agent/vm_nics.hh"

namespace godwit::agent {

struct HostParts {
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Peers& peers;
    Events& events;
    HostSearch::HostsCalled hosts_called;
    std::function<void(const std::string& peer, const Bytes& message)> wire_control;  // to be sent
  };
  explicit HostParts(const Context& its);
  // All of them go on with what the store says that was before.
  void start();

  WireThreads wires;
  Network network;
  Components components;
  DeviceDriver device;
  Images images;
  Disks disks;
  Vms vms;
  VmNics nics;
  Replicas replicas;
  Bytes key_of_digests;  // digest_key.hh
  KnownMemory known;
  Contents contents;
  Volumes volumes;
  Fabrics fabrics;
  EndpointParts endpoint;
  Relocations relocations;
  SourceMove::Context of_moves;  // what they use of all this
  Migrations migrations;
  Mappings mappings;
  Recordings recordings;
};

}  // namespace godwit::agent

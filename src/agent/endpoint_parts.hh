#pragma once
// Everything that a host does for the strategy endpoint: for guests that come (endpoint_lead.hh
// uses these), for those that leave, and for correspondents behind it.
#include "agent/associations.hh"
#include "agent/endpoint_kernel.hh"
#include "agent/endpoint_source.hh"

namespace godwit::agent {

struct EndpointParts {
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Peers& peers;
    DeviceDriver& device;
    const Fabrics& fabrics;
    Events& events;
  };
  explicit EndpointParts(const Context& its)
      : kernel(its.loop, its.network, its.store),
        associations({.config = its.config,
                      .store = its.store,
                      .network = its.network,
                      .kernel = kernel,
                      .fabrics = its.fabrics,
                      .events = its.events}),
        relays({.loop = its.loop,
                .config = its.config,
                .store = its.store,
                .network = its.network,
                .associations = associations,
                .kernel = kernel,
                .device = its.device}),
        source({.loop = its.loop,
                .config = its.config,
                .network = its.network,
                .peers = its.peers,
                .associations = associations,
                .kernel = kernel,
                .relays = relays,
                .fabrics = its.fabrics}) {}

  EndpointKernel kernel;
  Associations associations;
  EndpointRelays relays;
  EndpointSource source;
  Nanoseconds look_interval = seconds(5);  // of leads, at what is left
};

}  // namespace godwit::agent

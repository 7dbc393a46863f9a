#include "agent/host_parts.hh"

#include "agent/digest_key.hh"
#include "etcd/client.hh"

namespace godwit::agent {
namespace {

std::unique_ptr<etcd::Keys> etcd_of(os::Loop& loop, const MappingConfig& config) {
  if (!config.is_wanted()) return nullptr;
  return std::make_unique<etcd::Client>(loop, config.etcd);
}

}  // namespace

HostParts::HostParts(const Context& its)
    : wires(its.loop, its.config.name, wire_limits(its.config),
            {.control = its.wire_control,
             .event = [this](const wire::Event& event) { network.on_wire_event(event); }},
            its.config.wire_threads),
      network(its.loop, its.config, its.store, wires, its.events),
      components(its.loop, its.config, its.store, network, wires, its.events),
      device(its.loop, its.config, its.store, its.events),
      images(its.loop, its.config, its.store, its.events),
      disks(its.config, its.store, images),
      vms(its.loop, its.config, its.store, network, disks, its.events),
      nics(its.loop, its.config, vms, network),
      replicas({.loop = its.loop,
                .config = its.config,
                .store = its.store,
                .vms = vms,
                .disks = disks,
                .peers = its.peers,
                .events = its.events},
               its.hosts_called),
      key_of_digests(digest_key(its.store)),
      known(its.loop, key_of_digests, its.config.known_memory),
      contents(its.loop, its.config, key_of_digests, images, disks),
      volumes(its.loop, its.config),
      fabrics(its.store, its.peers, its.events),
      endpoint({.loop = its.loop,
                .config = its.config,
                .store = its.store,
                .network = network,
                .peers = its.peers,
                .device = device,
                .fabrics = fabrics,
                .events = its.events}),
      relocations({.loop = its.loop,
                   .config = its.config,
                   .store = its.store,
                   .network = network,
                   .peers = its.peers,
                   .device = device,
                   .events = its.events},
                  fabrics, endpoint),
      of_moves{.loop = its.loop,
               .config = its.config,
               .store = its.store,
               .network = network,
               .components = components,
               .vms = vms,
               .disks = disks,
               .replicas = replicas,
               .known = known,
               .contents = contents,
               .volumes = volumes,
               .relocations = relocations,
               .peers = its.peers,
               .events = its.events},
      migrations(of_moves, its.hosts_called),
      mappings({.loop = its.loop,
                .host = its.config.name,
                .site = its.config.site,
                .config = its.config.mapping,
                .store = its.store,
                .guests =
                    [this](const std::set<PortId>& port) { return located_guests(network, port); }},
               etcd_of(its.loop, its.config.mapping)),
      recordings(its.loop, vms, migrations) {
  network.use_peers(its.peers);
}

void HostParts::start() {
  network.start();
  components.start(ComponentMoves::left(of_moves.store));
  images.start([this](const std::string& image) { return disks.vms_on(image); });
  vms.start();
  nics.start();
  device.start();
  fabrics.start();
  endpoint.associations.start();
  endpoint.relays.start();
  relocations.start();
  endpoint.kernel.start();
  migrations.start();
  mappings.start();
  replicas.start();
  contents.start();
  network.sweep_nics();
}

}  // namespace godwit::agent

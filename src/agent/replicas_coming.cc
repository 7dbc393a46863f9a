// Replicas of other hosts' vms, which come here.
#include "agent/replicas.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/preflight_target.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMostComing = 64;

}  // namespace

void Replicas::make_way(const VmId& vm) {
  std::erase_if(coming_, [&](const auto& each) { return each.second->run().vm.id == vm; });
}

void Replicas::make_way(const std::string& vm, const std::string& tenant) {
  std::erase_if(coming_, [&](const auto& each) {
    return each.second->run().vm.name == vm && each.second->run().vm.tenant == tenant;
  });
}

void Replicas::on_session_up(const std::string& peer) {
  search_.on_session_up(peer);
  for (auto& [key, replica] : replicas_) {
    if (replica.run && replica.record.to == peer) replica.run->look_for_target();
  }
}

void Replicas::on_request(PeerRequest request, const nlohmann::json& body) {
  if (request.method == "replica.check") {
    const auto spec = qemu::vm_spec_from_json(qemu::member(body, "spec"));
    if (!spec) return request.answer(std::unexpected(spec.error()));
    return request.answer(godwit::agent::to_json(find_out_on_disks(
        context_.config, context_.disks, *spec, ByteCount{qemu::unsigned_at(body, "disk_bytes")},
        fail("a replica is another copy"))));
  }
  if (request.method == "replica.begin") return take_in(std::move(request), body);
  if (request.method == "replica.adopt") return adopt(std::move(request), body);
  if (request.method == "replica.knows") {
    const auto id = id_field<stream::TransferId>(body, "id");
    const auto failed = id ? failed_.find(*id) : failed_.end();
    return request.answer(
        nlohmann::json{{"known", id && coming_.contains(*id)},
                       {"why", failed != failed_.end() ? failed->second : std::string()}});
  }
  if (request.method == "replica.end") {
    if (const auto id = id_field<stream::TransferId>(body, "id")) {
      const auto found = coming_.find(*id);
      if (found != coming_.end() && found->second->run().from == request.peer) end(*id);
    }
    return request.answer(nlohmann::json::object());
  }
  if (request.method == "replica.remove") {
    const auto id = id_field<VmId>(body, "vm_id");
    if (!id) return request.answer(std::unexpected(id.error()));
    std::erase_if(coming_, [&](const auto& each) {
      return each.second->run().vm.id == *id && each.second->run().from == request.peer;
    });
    context_.disks.remove_replica(*id, request.peer);
    return request.answer(nlohmann::json::object());
  }
  request.answer(fail("unknown request {}", request.method));
}

void Replicas::take_in(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<stream::TransferId>(body, "id");
  if (!id) return request.answer(std::unexpected(id.error()));
  const auto spec = qemu::vm_spec_from_json(qemu::member(body, "spec"));
  if (!spec) return request.answer(std::unexpected(spec.error()));
  if (context_.disks.is_here(spec->id)) {
    return request.answer(fail("vm {} itself is here", spec->name));
  }
  if (coming_.contains(*id)) return request.answer(fail("replica run {} was begun", id->text()));
  make_way(spec->id);
  if (coming_.size() >= kMostComing) return request.answer(fail("too many replicas come here"));
  const auto snapshots = qemu::disk_snapshots(array_field(body, "snapshots"), spec->disks.size());
  if (!snapshots) return request.answer(std::unexpected(snapshots.error()));
  if (!snapshots->empty() && context_.disks.has_snapshots(*spec, *snapshots)) {
    return request.answer(nlohmann::json{{"there", true}});
  }
  ReplicaTarget::Run run{.id = *id, .from = request.peer, .vm = *spec, .snapshots = *snapshots};
  auto paths = receive(run, text_field_or(body, "synced", ""));
  if (!paths) return request.answer(std::unexpected(paths.error()));
  const auto asked = std::make_shared<std::optional<PeerRequest>>(std::move(request));
  const auto answer = [asked](Result<nlohmann::json> reply) {
    if (*asked) std::exchange(*asked, std::nullopt)->answer(std::move(reply));
  };
  coming_[*id] = std::make_unique<ReplicaTarget>(
      context_.loop, run, *std::move(paths), context_.config.run_dir / "replicas" / spec->id.text(),
      ReplicaTarget::Events{
          .ready = [answer, same = run.same] { answer(nlohmann::json{{"same", same}}); },
          .closed = [this, id = *id,
                     vm = spec->id] { context_.disks.replica_synced(vm, id.text()); },
          .failed =
              [this, id = *id, name = spec->name, answer](const std::string& why) {
                spdlog::warn("replica of vm {}: {}", name, why);
                if (failed_.size() >= kMostComing) failed_.erase(failed_.begin());
                failed_[id] = why;
                answer(fail("{}", why));
                context_.loop.post([this, id] { end(id); });
              }});
}

// Snapshots that did not come whole leave nothing.
void Replicas::end(const stream::TransferId& id) {
  const auto found = coming_.find(id);
  if (found == coming_.end()) return;
  const bool is_whole = found->second->has_adopted_all();
  const VmId vm = found->second->run().vm.id;
  coming_.erase(found);
  if (!is_whole) context_.disks.break_off(vm);
}

// Where what comes is to be written.
Result<std::vector<qemu::DiskPaths>> Replicas::receive(ReplicaTarget::Run& run,
                                                       const std::string& synced) {
  if (!run.snapshots.empty()) {
    return context_.disks.receive_snapshots(run.vm, run.from, run.snapshots);
  }
  const auto same = context_.disks.receive_replica(run.vm, run.from, synced);
  if (!same) return std::unexpected(same.error());
  run.same = *same;
  return context_.disks.paths(run.vm);
}

void Replicas::adopt(PeerRequest request, const nlohmann::json& body) {
  const auto id = id_field<stream::TransferId>(body, "id");
  const auto found = id ? coming_.find(*id) : coming_.end();
  if (found == coming_.end() || found->second->run().from != request.peer) {
    return request.answer(fail("this run is known no more: the agent was restarted"));
  }
  const auto disks = context_.disks.paths(found->second->run().vm);
  const auto asked = std::make_shared<PeerRequest>(std::move(request));
  found->second->adopt(disks, [asked](const Result<>& done) {
    asked->answer(done ? Result<nlohmann::json>(nlohmann::json::object())
                       : std::unexpected(done.error()));
  });
}

bool Replicas::use_lane(const std::string& peer, const stream::Hello& hello,
                        std::unique_ptr<os::ByteStream>& lane, BytesView early) {
  const auto found = coming_.find(hello.transfer);
  if (found == coming_.end() || found->second->run().from != peer) return false;
  found->second->use_lane(hello.lane, std::move(lane), early);
  return true;
}

}  // namespace godwit::agent

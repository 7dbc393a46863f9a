#include "qemu/dirty_bitmaps.hh"

#include <algorithm>

#include "qemu/block_jobs.hh"
#include "qemu/command_sequence.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr unsigned kGranularity = 64
                                  << 10;  // bytes; a cluster of a qcow2, a block of disk::DirtyMap

// Of one disk.
struct Found {
  bool has = false, has_taken = false;
  std::uint64_t bytes = 0;
  std::vector<std::string> damaged;
};

Found find(const json& nodes, const std::string& node, const std::string& name) {
  Found found;
  for (const json& each : nodes) {
    if (text_at(each, "node-name") != node) continue;
    for (const json& bitmap : member(each, "dirty-bitmaps")) {
      const std::string called = text_at(bitmap, "name");
      if (called != name && called != taken_bitmap(name)) continue;
      if (flag_at(bitmap, "inconsistent")) {
        found.damaged.push_back(called);
        continue;
      }
      (called == name ? found.has : found.has_taken) = true;
      found.bytes += unsigned_at(bitmap, "count");
    }
  }
  return found;
}

void query(Qmp& qmp, std::size_t disks, const std::string& name,
           std::function<void(Result<std::vector<Found>>)> done) {
  qmp.execute("query-named-block-nodes", {{"flat", true}},
              [disks, name, done = std::move(done)](const Result<json>& nodes) {
                if (!nodes) return done(std::unexpected(nodes.error()));
                std::vector<Found> all;
                for (std::size_t i = 0; i < disks; ++i) {
                  all.push_back(find(*nodes, disk_node(i), name));
                }
                done(std::move(all));
              });
}

json action(const char* type, json data) { return {{"type", type}, {"data", std::move(data)}}; }

json new_bitmap(const DiskSpec& disk, const std::string& node, const std::string& name) {
  return {{"node", node},
          {"name", name},
          {"granularity", kGranularity},
          {"persistent", disk.format == DiskFormat::qcow2}};
}

json merge(const std::string& node, const std::string& from, const std::string& to) {
  return {{"node", node}, {"target", to}, {"bitmaps", json::array({from})}};
}

json one(const std::string& node, const std::string& name) {
  return {{"node", node}, {"name", name}};
}

// All disks at one moment.
Step transaction(json actions) { return {"transaction", {{"actions", std::move(actions)}}}; }

}  // namespace

std::string taken_bitmap(const std::string& name) { return name + "-taken"; }

void take_changes(Qmp& qmp, std::vector<DiskSpec> disks, const std::string& name,
                  std::function<bool()> lost, std::function<void(Result<Changes>)> done) {
  const std::size_t count = disks.size();
  const auto take = [&qmp, disks = std::move(disks), name, lost = std::move(lost),
                     done](const Result<std::vector<Found>>& found) {
    if (!found) return done(std::unexpected(found.error()));
    const std::string taken = taken_bitmap(name);
    const bool known = std::ranges::all_of(
        *found, [](const Found& disk) { return disk.has && disk.damaged.empty(); });
    if (!known && !lost()) return;
    std::vector<Step> steps;
    json actions = json::array();
    for (std::size_t i = 0; i < disks.size(); ++i) {
      const Found& disk = (*found)[i];
      const std::string node = disk_node(i);
      for (const auto& damaged : disk.damaged) {
        steps.push_back({"block-dirty-bitmap-remove", one(node, damaged)});
      }
      if (known && disk.has_taken) {
        steps.push_back({"block-dirty-bitmap-merge", merge(node, taken, name)});
      }
      if (disk.has_taken) steps.push_back({"block-dirty-bitmap-remove", one(node, taken)});
      if (known) {
        json bitmap = new_bitmap(disks[i], node, taken);
        bitmap["disabled"] = true;
        actions.push_back(action("block-dirty-bitmap-add", std::move(bitmap)));
        actions.push_back(action("block-dirty-bitmap-merge", merge(node, name, taken)));
      }
      actions.push_back(disk.has
                            ? action("block-dirty-bitmap-clear", one(node, name))
                            : action("block-dirty-bitmap-add", new_bitmap(disks[i], node, name)));
    }
    steps.push_back(transaction(std::move(actions)));
    run(qmp, std::move(steps), [known, done](const Result<>& took) {
      if (!took) return done(std::unexpected(took.error()));
      done(known ? Changes::known : Changes::unknown);
    });
  };
  stop_exports(qmp, [&qmp, count, name, take, alive = qmp.lifetime()](const Result<>& stopped) {
    if (alive.expired()) return take(std::unexpected(stopped.error()));
    query(qmp, count, name, take);
  });
}

void drop_changes(Qmp& qmp, std::size_t disks, const std::string& name, Done done) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"block-dirty-bitmap-remove", one(disk_node(i), taken_bitmap(name)), true});
  }
  run(qmp, std::move(steps), std::move(done));
}

void count_changes(Qmp& qmp, std::size_t disks, const std::string& name,
                   std::function<void(Result<std::optional<std::uint64_t>>)> done) {
  query(qmp, disks, name, [done = std::move(done)](const Result<std::vector<Found>>& found) {
    if (!found) return done(std::unexpected(found.error()));
    if (!std::ranges::all_of(*found, &Found::has)) return done(std::nullopt);
    std::uint64_t sum = 0;
    for (const Found& disk : *found) sum += disk.bytes;
    done(sum);
  });
}

void forget_changes(Qmp& qmp, std::size_t disks, const std::string& name, Done done) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    for (const auto& each : {name, taken_bitmap(name)}) {
      steps.push_back({"block-dirty-bitmap-remove", one(disk_node(i), each), true});
    }
  }
  stop_exports(qmp, [&qmp, steps = std::move(steps), alive = qmp.lifetime(),
                     done = std::move(done)](const Result<>& stopped) mutable {
    if (alive.expired()) return done(stopped);
    run(qmp, std::move(steps), std::move(done));
  });
}

}  // namespace godwit::qemu

#include "qemu/block_jobs.hh"

#include <algorithm>

#include "qemu/command_sequence.hh"
#include "qemu/disk_spec.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr Nanoseconds kLookAgain = milliseconds(1);  // whether jobs have ended
constexpr int kMostLooks = 5000;

json unix_address(const std::filesystem::path& socket) {
  return {{"type", "unix"}, {"path", socket.string()}};
}

std::string tap_node(std::size_t index) { return fmt::format("godwit-tap{}", index); }

bool is_ours(const json& job) { return text_at(job, "device").starts_with("godwit-tap"); }

std::vector<Step> cancel_taps(std::size_t disks) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"block-job-cancel", {{"device", tap_node(i)}, {"force", true}}, true});
  }
  return steps;
}

void remove_tap_nodes(Qmp& qmp, std::size_t disks, Done done) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"blockdev-del", {{"node-name", tap_node(i)}}, true});
  }
  run(qmp, std::move(steps), std::move(done));
}

// A job that was cancelled ends soon.
void await_untapped(Qmp& qmp, std::size_t disks, int looks, Done done) {
  if (looks == 0) return done(fail("vm {}: QEMU's mirror jobs do not end", qmp.vm()));
  qmp.execute("query-block-jobs", nullptr,
              [&qmp, disks, looks, done = std::move(done)](Result<json> jobs) mutable {
                if (!jobs) return done(std::unexpected(jobs.error()));
                if (std::ranges::none_of(*jobs, is_ours)) {
                  return remove_tap_nodes(qmp, disks, std::move(done));
                }
                auto timer = std::make_shared<os::Loop::Timer>();
                *timer = qmp.loop().after(kLookAgain, [&qmp, disks, looks, alive = qmp.lifetime(),
                                                       timer, done = std::move(done)]() mutable {
                  if (!alive.expired()) await_untapped(qmp, disks, looks - 1, std::move(done));
                });
              });
}

}  // namespace

void export_nodes(Qmp& qmp, const std::filesystem::path& socket,
                  const std::vector<std::string>& nodes, const std::optional<std::string>& bitmap,
                  Done done) {
  const json address = {{"type", "unix"}, {"data", {{"path", socket.string()}}}};
  std::vector<Step> steps{{"nbd-server-stop", nullptr, true},
                          {"nbd-server-start", {{"addr", address}}}};
  for (const std::string& node : nodes) {
    steps.push_back({"block-export-add",
                     {{"type", "nbd"},
                      {"id", "godwit-" + node},
                      {"node-name", node},
                      {"name", node},
                      {"allocation-depth", true},
                      {"bitmaps", bitmap ? json::array({*bitmap}) : json::array()}}});
  }
  run(qmp, std::move(steps), std::move(done));
}

std::string opened_file(std::size_t disk) { return fmt::format("godwit-file{}", disk); }

void open_files(Qmp& qmp, const std::vector<std::size_t>& disks, Done done) {
  qmp.execute("query-named-block-nodes", nullptr,
              [&qmp, disks, done = std::move(done)](Result<json> nodes) mutable {
                if (!nodes) return done(std::unexpected(nodes.error()));
                std::vector<Step> steps;
                for (const std::size_t disk : disks) {
                  const auto below = std::ranges::find_if(*nodes, [&](const json& node) {
                    return text_at(node, "node-name") == file_node(disk_node(disk));
                  });
                  if (below == nodes->end()) return done(fail("vm {}: disk lost", qmp.vm()));
                  steps.push_back({"blockdev-del", {{"node-name", opened_file(disk)}}, true});
                  steps.push_back({"blockdev-add",
                                   {{"driver", "file"},
                                    {"node-name", opened_file(disk)},
                                    {"filename", text_at(*below, "file")},
                                    {"read-only", true},
                                    {"locking", "off"}}});
                }
                run(qmp, std::move(steps), std::move(done));
              });
}

void close_files(Qmp& qmp, const std::vector<std::size_t>& disks, Done done) {
  std::vector<Step> steps;
  for (const std::size_t disk : disks) {
    steps.push_back({"blockdev-del", {{"node-name", opened_file(disk)}}, true});
  }
  run(qmp, std::move(steps), std::move(done));
}

void stop_exports(Qmp& qmp, Done done) {
  run(qmp, {{"nbd-server-stop", nullptr, true}}, std::move(done));
}

// A tap that fails ends by itself, and the guest never hears of it (on-target-error=report).
void tap_disks(Qmp& qmp, const std::filesystem::path& socket, std::size_t disks, Done done) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"blockdev-add",
                     {{"driver", "nbd"},
                      {"node-name", tap_node(i)},
                      {"server", unix_address(socket)},
                      {"export", disk_node(i)}}});
    steps.push_back({"blockdev-mirror",
                     {{"job-id", tap_node(i)},
                      {"device", disk_node(i)},
                      {"target", tap_node(i)},
                      {"sync", "none"},
                      {"copy-mode", "write-blocking"},
                      {"on-source-error", "report"},
                      {"on-target-error", "report"}}});
  }
  run(qmp, std::move(steps), std::move(done));
}

void untap_disks(Qmp& qmp, std::size_t disks, Done done) {
  run(qmp, cancel_taps(disks), [&qmp, disks, done = std::move(done)](Result<> asked) mutable {
    if (!asked) return done(asked);
    await_untapped(qmp, disks, kMostLooks, std::move(done));
  });
}

void abandon_disks(Qmp& qmp, std::size_t disks) {
  std::vector<Step> steps = cancel_taps(disks);
  steps.push_back({"nbd-server-stop", nullptr, true});
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"blockdev-del", {{"node-name", opened_file(i)}}, true});
  }
  run(qmp, std::move(steps), [](const Result<>&) {});
}

}  // namespace godwit::qemu

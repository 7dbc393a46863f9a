#include "qemu/block_jobs.hh"

#include <algorithm>

#include "qemu/command_sequence.hh"
#include "qemu/disk_spec.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

constexpr Nanoseconds kLookAgain = milliseconds(1);  // at the jobs
constexpr int kMostLooks = 5000;

json unix_address(const std::filesystem::path& socket) {
  return {{"type", "unix"}, {"path", socket.string()}};
}

std::string tap_node(std::size_t index) { return fmt::format("godwit-tap{}", index); }

bool is_ours(const json& job) { return text_at(job, "device").starts_with("godwit-tap"); }

std::vector<Step> cancel_taps(std::size_t disks, bool force) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"block-job-cancel", {{"device", tap_node(i)}, {"force", force}}, force});
  }
  return steps;
}

// With an answer between, QEMU's main loop has seen who has let go: see stop_exports().
std::vector<Step> stop_server() {
  return {{"query-status", nullptr}, {"nbd-server-stop", nullptr, true}};
}

void remove_tap_nodes(Qmp& qmp, std::size_t disks, Done done) {
  std::vector<Step> steps;
  for (std::size_t i = 0; i < disks; ++i) {
    steps.push_back({"blockdev-del", {{"node-name", tap_node(i)}}, true});
  }
  run(qmp, std::move(steps), std::move(done));
}

// Of query-block-jobs, an array.
void query_taps(Qmp& qmp, Answer<json> answer) {
  qmp.execute("query-block-jobs", nullptr, [answer = std::move(answer)](Result<json> jobs) mutable {
    if (!jobs) return answer(std::unexpected(jobs.error()));
    json ours = json::array();
    std::ranges::copy_if(*jobs, std::back_inserter(ours), is_ours);
    answer(std::move(ours));
  });
}

// Until the taps are as they `should` be, which is soon.
void await_taps(Qmp& qmp, bool (*should)(const json&), const char* what, Done done,
                int looks = kMostLooks) {
  if (looks == 0) return done(fail("vm {}: QEMU's mirror jobs {}", qmp.vm(), what));
  query_taps(qmp, [&qmp, should, what, looks,
                   done = std::move(done)](const Result<json>& taps) mutable {
    if (!taps) return done(std::unexpected(taps.error()));
    if (should(*taps)) return done({});
    auto timer = std::make_shared<os::Loop::Timer>();
    *timer = qmp.loop().after(kLookAgain, [&qmp, should, what, looks, alive = qmp.lifetime(),
                                           vm = qmp.vm(), timer, done = std::move(done)]() mutable {
      if (alive.expired()) return done(fail("vm {}: its QMP connection has ended", vm));
      await_taps(qmp, should, what, std::move(done), looks - 1);
    });
  });
}

void await_untapped(Qmp& qmp, std::size_t disks, Done done) {
  await_taps(
      qmp, [](const json& taps) { return taps.empty(); }, "do not end",
      [&qmp, disks, done = std::move(done)](const Result<>& ended) mutable {
        if (!ended) return done(ended);
        remove_tap_nodes(qmp, disks, std::move(done));
      });
}

// Of a guest that stands: nothing is in flight.
void end_taps_of_standing(Qmp& qmp, std::size_t disks, Done done) {
  run(qmp, cancel_taps(disks, true), [&qmp, disks, done = std::move(done)](Result<> asked) mutable {
    if (!asked) return done(asked);
    await_untapped(qmp, disks, std::move(done));
  });
}

void end_taps_of_running(Qmp& qmp, std::size_t disks, Done done) {
  stop(qmp, [&qmp, disks, done = std::move(done)](Result<> stands) mutable {
    if (!stands) return done(stands);
    end_taps_of_standing(
        qmp, disks, [&qmp, alive = qmp.lifetime(), done = std::move(done)](Result<> ended) mutable {
          if (alive.expired()) return done(ended);
          cont(qmp, [ended, done = std::move(done)](Result<> runs) mutable {
            done(ended ? std::move(runs) : std::move(ended));
          });
        });
  });
}

}  // namespace

void export_nodes(Qmp& qmp, const std::filesystem::path& socket,
                  const std::vector<std::string>& nodes, const std::optional<std::string>& bitmap,
                  Done done) {
  const json address = {{"type", "unix"}, {"data", {{"path", socket.string()}}}};
  std::vector<Step> steps = stop_server();
  steps.push_back({"nbd-server-start", {{"addr", address}}});
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

void stop_exports(Qmp& qmp, Done done) { run(qmp, stop_server(), std::move(done)); }

// A tap that fails is paused, not ended: see untap_disks().
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
                      {"on-source-error", "stop"},
                      {"on-target-error", "stop"}}});
  }
  run(qmp, std::move(steps), [&qmp, done = std::move(done)](Result<> begun) mutable {
    if (!begun) return done(begun);
    // One that is not would be forced to end.
    const auto are_ready = [](const json& taps) {
      return std::ranges::all_of(taps, [](const json& tap) { return flag_at(tap, "ready"); });
    };
    await_taps(qmp, are_ready, "do not get ready", std::move(done));
  });
}

void untap_disks(Qmp& qmp, std::size_t disks, Done done) {
  run(qmp, cancel_taps(disks, false),
      [&qmp, disks, done = std::move(done)](Result<> asked) mutable {
        if (!asked) return done(asked);
        await_untapped(qmp, disks, std::move(done));
      });
}

void end_lost_taps(Qmp& qmp, std::size_t disks, Done done) {
  query_taps(qmp, [&qmp, disks, done = std::move(done)](const Result<json>& taps) mutable {
    if (!taps) return done(std::unexpected(taps.error()));
    if (taps->empty()) return remove_tap_nodes(qmp, disks, std::move(done));
    query_status(qmp, [&qmp, disks, done = std::move(done)](Result<VmStatus> guest) mutable {
      if (!guest) return done(std::unexpected(guest.error()));
      guest->running ? end_taps_of_running(qmp, disks, std::move(done))
                     : end_taps_of_standing(qmp, disks, std::move(done));
    });
  });
}

void abandon_disks(Qmp& qmp, std::size_t disks, Done done) {
  end_lost_taps(qmp, disks, [&qmp, disks, done = std::move(done)](Result<> ended) mutable {
    if (!ended) return done(ended);
    std::vector<Step> steps = stop_server();
    for (std::size_t i = 0; i < disks; ++i) {
      steps.push_back({"blockdev-del", {{"node-name", opened_file(i)}}, true});
    }
    run(qmp, std::move(steps), std::move(done));
  });
}

}  // namespace godwit::qemu

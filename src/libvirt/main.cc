// godwit-libvirt: does one thing with this host's libvirt for the agent, and says what came of it
// in lines of JSON, the last of which has "ok" or "error". A program of its own, because libvirt's
// calls block, some for as long as a domain moves: it can be ended, and takes no agent with it.
//
// godwit-libvirt URI WHAT DOMAIN [REQUEST], the request in JSON. WHAT:
//
// - describe: what the domain is and does
// - run: it runs, if it stands after a migration; "gone": there is none
// - resume: likewise, once a line comes on stdin, to be connected by then
// - remove: it is ended and undefined; nothing where there is none, an error where it runs
// - look: DOMAIN as another host describes it; what keeps it from here, and which disks are here
// - delete: a list of disks' paths
// - migrate: tells its progress; SIGTERM aborts it. Then a domain whose disks move stands until it
//   has ended, and "safe" tells whether it does: libvirt forces QEMU's copies to end, which QEMU
//   does not bear while writes are in flight (src/qemu/block_jobs.hh)
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "libvirt/connection.hh"

namespace godwit::libvirt {
namespace {

using nlohmann::json;

constexpr int kProgressMs = 250;

void say(const json& line) { std::cout << line.dump() << std::endl; }

int conclude(const Result<>& result, json facts = json::object()) {
  if (result) {
    facts["ok"] = true;
    say(facts);
    return 0;
  }
  say({{"error", result.error().text}});
  return 1;
}

json told(const DomainState& state) {
  return {{"active", state.is_active}, {"paused", state.is_paused}, {"job", state.has_job}};
}

int tell(const Connection& connection, const std::string& name) {
  const auto domain = connection.find(name);
  if (!domain) return conclude(std::unexpected(domain.error()));
  if (!*domain) return conclude({}, {{"state", told({})}});
  const auto state = state_of(**domain);
  if (!state) return conclude(std::unexpected(state.error()));
  json facts = {{"state", told(*state)}};
  if (!state->is_active) return conclude({}, std::move(facts));
  const auto described = describe(**domain);
  if (!described) return conclude(std::unexpected(described.error()));
  facts["domain"] = to_json(*described);
  return conclude({}, std::move(facts));
}

// A domain that stands after a migration: at the target when it has come whole, at the source when
// that failed. Never one that is still arriving.
int run(const Connection& connection, const std::string& name) {
  const auto domain = connection.find(name);
  if (!domain) return conclude(std::unexpected(domain.error()));
  const auto state = *domain ? state_of(**domain) : DomainState{};
  if (!state) return conclude(std::unexpected(state.error()));
  if (!state->is_active) return conclude({}, {{"gone", true}});
  if (state->has_job) return conclude(fail("domain {} is still being migrated", name));
  return conclude(state->is_paused ? resume(**domain) : Result<>{});
}

int remove(const Connection& connection, const std::string& name) {
  const auto domain = connection.find(name);
  if (!domain) return conclude(std::unexpected(domain.error()));
  if (!*domain) return conclude({});
  const auto state = state_of(**domain);
  if (!state) return conclude(std::unexpected(state.error()));
  if (state->is_active && !state->is_paused) {
    return conclude(fail("domain {} runs: it did not just arrive", name));
  }
  return conclude(end_and_forget(**domain));
}

int look(const Connection& connection, const json& described) {
  const auto domain = domain_from_json(described);
  if (!domain) return conclude(std::unexpected(domain.error()));
  json obstacles = json::array(), there = json::array();
  for (const std::string& name : {domain->name, domain->uuid}) {
    const auto found = connection.find(name);
    if (!found) return conclude(std::unexpected(found.error()));
    if (!*found) continue;
    obstacles.push_back(fmt::format("libvirt has a domain {} here already", name));
    break;
  }
  for (const DomainDisk& disk : domain->moving_disks()) {
    const auto place = connection.place_of(disk.path);
    if (!place) return conclude(std::unexpected(place.error()));
    if (*place == Place::taken) there.push_back(disk.path);
    if (*place == Place::unknown) {
      obstacles.push_back(fmt::format(
          "there is no active storage pool for {}: virsh pool-define-as NAME dir --target {}, and "
          "pool-start",
          disk.path, std::filesystem::path(disk.path).parent_path().string()));
    }
  }
  return conclude({}, {{"obstacles", obstacles}, {"there", there}});
}

int remove_disks(const Connection& connection, const json& paths) {
  for (const std::string path : paths) {
    if (auto done = connection.remove_disk(path); !done) return conclude(done);
  }
  return conclude({});
}

struct Watched {
  std::uint64_t max_downtime_ms = 0;
  bool has_disks = false;  // that move
  std::atomic<bool> over = false;
  std::atomic<bool> stands = false;
};

// While another thread is in libvirt's call: with a connection of its own.
void watch(const std::string& uri, const std::string& name, const int signals, Watched& move) {
  const auto connection = Connection::open(uri);
  const auto domain = connection ? connection->find(name) : std::unexpected(connection.error());
  bool told_downtime = false;
  while (!move.over) {
    pollfd wait{.fd = signals, .events = POLLIN, .revents = 0};
    const bool is_asked = ::poll(&wait, 1, kProgressMs) > 0;
    if (!domain || !*domain || move.over) continue;
    if (is_asked) {
      signalfd_siginfo taken{};
      (void)!::read(signals, &taken, sizeof taken);
      if (move.has_disks && virDomainSuspend(domain->get()) == 0) move.stands = true;
      say({{"safe", !move.has_disks || move.stands}});
      virDomainAbortJob(domain->get());
    }
    if (!told_downtime) {
      told_downtime = virDomainMigrateSetMaxDowntime(domain->get(), move.max_downtime_ms, 0) == 0;
    }
    const json job = job_of(**domain);
    if (!job.empty() && !move.over) say({{"progress", job}});
  }
}

int migrate(const Connection& connection, const std::string& uri, const std::string& name,
            const json& request) {
  sigset_t ends{};
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigprocmask(SIG_BLOCK, &ends, nullptr);
  const int signals = ::signalfd(-1, &ends, SFD_CLOEXEC);
  const auto domain = connection.find(name);
  if (!domain) return conclude(std::unexpected(domain.error()));
  if (!*domain) return conclude(fail("there is no domain {} any more", name));
  Watched move{.max_downtime_ms = request.at("max_downtime_ms"),
               .has_disks = !request.at("targets").empty()};
  std::thread watching([&] { watch(uri, name, signals, move); });
  const auto done =
      connection.migrate(**domain, {.target = request.at("target"),
                                    .memory = request.at("memory"),
                                    .disks = request.at("disks"),
                                    .targets = request.at("targets"),
                                    .throttle = request.at("throttle"),
                                    .is_persistent = virDomainIsPersistent(domain->get()) == 1});
  move.over = true;
  watching.join();
  if (!done && move.stands) (void)virDomainResume(domain->get());  // libvirt may have
  return conclude(done);
}

int perform(const std::vector<std::string>& words) {
  const std::string &uri = words[0], &what = words[1], &name = words[2];
  const auto connection = Connection::open(uri);
  if (!connection) return conclude(std::unexpected(connection.error()));
  if (what == "describe") return tell(*connection, name);
  if (what == "run") return run(*connection, name);
  if (what == "remove") return remove(*connection, name);
  if (what == "resume") {
    std::string line;
    return std::getline(std::cin, line) ? run(*connection, name) : 1;
  }
  if (what == "look" && words.size() == 4) return look(*connection, json::parse(words[3]));
  if (what == "delete" && words.size() == 4) {
    return remove_disks(*connection, json::parse(words[3]));
  }
  if (what == "migrate" && words.size() == 4) {
    return migrate(*connection, uri, name, json::parse(words[3]));
  }
  return conclude(fail("'{}' is nothing that can be done with a domain", what));
}

}  // namespace
}  // namespace godwit::libvirt

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() < 3) {
    std::cerr
        << "usage: godwit-libvirt URI WHAT DOMAIN [REQUEST]; it is the agent's, see godwitd(8)\n";
    return 2;
  }
  try {
    return godwit::libvirt::perform(words);
  } catch (const std::exception& error) {
    return godwit::libvirt::conclude(godwit::fail("{}", error.what()));
  }
}

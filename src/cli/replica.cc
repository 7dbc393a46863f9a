// godwit replica add|ls|sync|rm
#include <algorithm>
#include <cmath>
#include <ostream>

#include "base/units.hh"
#include "cli/interrupt.hh"
#include "cli/options.hh"
#include "cli/progress.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

constexpr Nanoseconds kLookInterval = milliseconds(250);

struct Wish {
  std::string vm, to, every, rate;
  bool detach = false, force = false;
};

std::string seconds_of(const json& object, const char* key) {
  if (!object.contains(key)) return "-";
  return to_text(seconds(static_cast<std::int64_t>(std::llround(number_of(object, key)))));
}

bool is_running(const json& replica) {
  const std::string state = replica.value("state", "");
  return state == "copying" || state == "updating";
}

std::string state_of(const json& replica) {
  const std::string state = text_of(replica, "state");
  return replica.contains("reason") ? state + ": " + text_of(replica, "reason") : state;
}

void list_replicas(Context& context) {
  const json replicas = context.fetch("/v1/replicas");
  if (context.as_json) return context.print_json(replicas);
  Table table({{"VM"},
               {"TO"},
               {"EVERY", Align::right},
               {"BEHIND", Align::right},
               {"BY", Align::right},
               {"LAST RUN", Align::right},
               {"STATE"}});
  for (const json& replica : replicas) {
    table.row({text_of(replica, "vm"), text_of(replica, "to"), seconds_of(replica, "every_s"),
               seconds_of(replica, "behind_s"), bytes_of(replica, "behind_bytes"),
               bytes_of(replica.value("last_run", json::object()), "sent_bytes"),
               state_of(replica)});
  }
  context.io.out << table.text("no replicas");
}

// As Progress shows it.
json progress_of(const json& replica) {
  const json run = replica.value("progress", json::object());
  const double total = number_of(run, "total_bytes");
  json progress = {{"phase", replica.value("state", "")}};
  if (total == 0) return progress;
  progress["done_bytes"] =
      static_cast<std::uint64_t>(std::max(0.0, total - number_of(run, "remaining_bytes")));
  progress["size_bytes"] = static_cast<std::uint64_t>(total);
  for (const char* key : {"rate_bps", "eta_s"}) progress[key] = number_of(run, key);
  return progress;
}

// Until a run that has not come whole before has. Nothing: Ctrl-C came before.
std::optional<json> follow_run(const Context& context, const std::string& path,
                               double synced_before) {
  Interrupt interrupt;
  Progress progress(context.io);
  for (;;) {
    json replica = context.fetch(path);
    if (!is_running(replica) && number_of(replica, "runs") > synced_before) return replica;
    if (!is_running(replica) && replica.contains("reason")) {
      throw Failure(
          ExitStatus::failed,
          fmt::format("replica of vm {} at {}: {}; it is tried again by itself, see godwit "
                      "replica ls",
                      text_of(replica, "vm"), text_of(replica, "to"), text_of(replica, "reason")));
    }
    progress.show(progress_of(replica));
    interrupt.wait(kLookInterval);
    if (interrupt.take() != Interrupt::Cause::none) return std::nullopt;
  }
}

void wait_for_run(Context& context, const std::string& path, double runs_before) {
  const auto replica = follow_run(context, path, runs_before);
  if (!replica) {
    throw Failure(ExitStatus::failed,
                  "no longer watching; the replica goes on, see godwit replica ls");
  }
  if (context.as_json) return context.print_json(*replica);
  const json run = replica->value("last_run", json::object());
  context.say(fmt::format(
      "vm {} is replicated at {}: {} sent, {} there already, in {:.1f} s; again "
      "every {}",
      text_of(*replica, "vm"), text_of(*replica, "to"), bytes_of(run, "sent_bytes"),
      bytes_of(run, "same_bytes"), number_of(run, "seconds"), seconds_of(*replica, "every_s")));
}

void add_one(Context& context, const Wish& wish) {
  json body = {{"vm", wish.vm}, {"to", wish.to}};
  set_if_given(body, "every", wish.every);
  set_if_given(body, "rate", wish.rate);
  const json replica = context.post("/v1/replicas", body);
  const std::string to = replica.value("to", "");
  if (!wish.detach && number_of(replica, "runs") == 0) {
    return wait_for_run(context, path_of("replicas", wish.vm, to), 0);
  }
  if (context.as_json) return context.print_json(replica);
  context.say(fmt::format("vm {} is replicated to {} every {}", wish.vm, to,
                          seconds_of(replica, "every_s")));
}

// The one host that the vm has a replica at, where none is said.
std::string host_of(const Context& context, const Wish& wish) {
  if (!wish.to.empty()) return wish.to;
  std::vector<std::string> hosts;
  for (const json& replica : context.fetch("/v1/replicas")) {
    if (replica.value("vm", "") == wish.vm) hosts.push_back(replica.value("to", ""));
  }
  if (hosts.size() == 1) return hosts.front();
  throw Failure(ExitStatus::failed,
                hosts.empty() ? fmt::format("vm {} has no replica; see godwit replica ls", wish.vm)
                              : fmt::format("vm {} has replicas at {}: say which with --to",
                                            wish.vm, fmt::join(hosts, " and ")));
}

void sync_one(Context& context, const Wish& wish) {
  const std::string path = path_of("replicas", wish.vm, host_of(context, wish));
  const double before = number_of(context.fetch(path), "runs");
  context.post(path + "/sync", json::object());
  wait_for_run(context, path, before);
}

void remove_one(Context& context, const Wish& wish) {
  const std::string to = host_of(context, wish);
  context.remove(path_of("replicas", wish.vm, to) + (wish.force ? "?force=true" : ""));
  context.say(fmt::format("replica of vm {} at {} removed", wish.vm, to));
}

CLI::App* add_on_vm(CLI::App& noun, const char* verb, const char* help,
                    const std::shared_ptr<Wish>& wish) {
  auto* app = noun.add_subcommand(verb, help);
  add_name(*app, "VM", wish->vm, "Name of the vm")->required();
  add_name(*app, "--to", wish->to, "The host of the replica, where the vm has several")
      ->type_name("HOST");
  return app;
}

void add_add(CLI::App& noun, Context& context, const std::shared_ptr<Wish>& wish) {
  auto* add = noun.add_subcommand(
      "add", "Keep a copy of a vm's disks at another host; again: change how it is kept");
  add_name(*add, "VM", wish->vm, "Name of the vm")->required();
  add_name(*add, "--to", wish->to, "Host, or site, that has it")
      ->type_name("HOST|SITE")
      ->required();
  add_duration(*add, "--every", wish->every,
               "From the beginning of one run to the next (default 10m)");
  add_rate(*add, "--rate", wish->rate, "At most so much of the link (default: what it carries)");
  add->add_flag("--detach", wish->detach, "Do not wait for the first copy");
  add_json(*add, context);
  add->callback([&context, wish] { add_one(context, *wish); });
}

}  // namespace

void add_replica(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand(
                      "replica", "Copies of vms' disks that wait elsewhere, for a quick move there")
                   ->require_subcommand(1);
  const auto wish = std::make_shared<Wish>();
  add_add(*noun, context, wish);

  auto* ls = noun->add_subcommand("ls", "List the replicas of the vms of this agent's host");
  add_json(*ls, context);
  ls->callback([&context] { list_replicas(context); });

  auto* sync = add_on_vm(*noun, "sync", "Bring a replica up to date now", wish);
  add_json(*sync, context);
  sync->callback([&context, wish] { sync_one(context, *wish); });

  auto* rm = add_on_vm(*noun, "rm", "Remove a replica; nothing is left of it", wish);
  rm->add_flag("--force", wish->force, "Also when its host cannot be asked, where it stays then");
  rm->callback([&context, wish] { remove_one(context, *wish); });
}

}  // namespace godwit::cli

// godwit apply, diff, export: a file of the network that shall be, and the network that is.
#include <fmt/ranges.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <ostream>

#include "base/id.hh"
#include "cli/fleet_state.hh"
#include "cli/options.hh"
#include "cli/topology_settings.hh"
#include "cli/yaml_document.hh"
#include "topology/desired.hh"
#include "topology/export.hh"

namespace godwit::cli {
namespace {

using topology::Actual;
using topology::Desired;
using topology::Phase;
using topology::Plan;
using topology::Step;

struct TopologyWish {
  std::string file, format = "yaml", topology;
  bool dry_run = false, prune = false;
};

Desired read_topology(const YamlDocument& document) {
  const std::string stem = std::filesystem::path(document.file).stem().string();
  auto desired = topology::parse(document.value, stem);
  if (!desired) throw failure_of(ExitStatus::usage, document, desired.error());
  const auto problems = read_settings(*desired);
  if (!problems.empty()) throw failure_of(ExitStatus::usage, document, problems);
  return *std::move(desired);
}

struct Planned {
  Desired desired;
  Plan plan;
};

Planned plan_for(const Context& context, const std::string& file) {
  auto document = read_yaml(file);
  if (!document) throw Failure(ExitStatus::usage, document.error().text);
  Desired desired = read_topology(*document);
  Plan plan = topology::plan(desired, ask_fleet(context));
  if (!plan.problems.empty()) {
    throw failure_of(ExitStatus::refused, *document, plan.problems);
  }
  return {std::move(desired), std::move(plan)};
}

const char* sign_of(const Step& step) {
  if (step.phase < Phase::make) return "-";
  return step.what.starts_with("change") ? "~" : "+";
}

json to_json(const Step& step) {
  return {{"do", step.what}, {"host", step.host}, {"prune", step.prune}, {"request", step.request}};
}

void show_plan(Context& context, const Planned& planned) {
  if (context.as_json) {
    json steps = json::array();
    for (const Step& step : planned.plan.steps) steps.push_back(to_json(step));
    return context.print_json(
        {{"topology", planned.desired.name}, {"steps", steps}, {"notes", planned.plan.notes}});
  }
  for (const Step& step : planned.plan.steps) {
    context.io.out << fmt::format("{} {}{}\n", sign_of(step), step.what,
                                  step.prune ? "  (with --prune)" : "");
  }
  for (const auto& note : planned.plan.notes) context.io.err << note << '\n';
  if (planned.plan.steps.empty()) context.io.out << "nothing to do\n";
}

void show_outcomes(Context& context, const std::string& name,
                   const std::vector<Outcome>& outcomes) {
  std::size_t failed = 0;
  json steps = json::array();
  for (const auto& [step, error] : outcomes) {
    if (!error.empty()) ++failed;
    steps.push_back(to_json(*step));
    if (!error.empty()) steps.back()["error"] = error;
  }
  if (context.as_json) context.print_json({{"topology", name}, {"steps", steps}});
  if (failed == 0) {
    return context.say(outcomes.empty()
                           ? fmt::format("topology {} is as it shall be", name)
                           : fmt::format("topology {}: {} steps done", name, outcomes.size()));
  }
  throw Failure(ExitStatus::failed,
                fmt::format("topology {}: {} of {} steps failed; apply it again when what is told "
                            "of them is mended",
                            name, failed, outcomes.size()));
}

void apply(Context& context, const TopologyWish& wish) {
  Planned planned = plan_for(context, wish.file);
  if (!wish.prune) std::erase_if(planned.plan.steps, [](const Step& step) { return step.prune; });
  if (wish.dry_run) return show_plan(context, planned);
  if (wish.prune) {
    for (const auto& note : planned.plan.notes) context.io.err << note << '\n';
  }
  const std::size_t all = planned.plan.steps.size();
  std::size_t done = 0;
  const auto outcomes =
      take_steps(context, planned.plan.steps, [&](const std::vector<Outcome>& some) {
        for (const auto& [step, error] : some) {
          ++done;
          if (error.empty() && all > 100) continue;  // nobody reads them
          context.io.err << fmt::format("{} {}{}{}\n", sign_of(*step), step->what,
                                        error.empty() ? "" : ": ", error);
        }
        if (all > 100) context.io.err << fmt::format("{} of {} steps\n", done, all);
      });
  show_outcomes(context, planned.desired.name, outcomes);
}

void diff(Context& context, const TopologyWish& wish) {
  const Planned planned = plan_for(context, wish.file);
  show_plan(context, planned);
  if (!planned.plan.steps.empty()) context.status = ExitStatus::differs;
}

// ---- export ----

// By Graphviz, which reads a file and writes what is read here.
std::string drawn(const std::string& dot) {
  std::string path = std::filesystem::temp_directory_path() / "godwit-XXXXXX";
  const int fd = ::mkstemp(path.data());
  if (fd < 0) throw Failure(ExitStatus::failed, errno_text("make a file for the picture"));
  ::close(fd);
  std::ofstream(path) << dot;
  const auto remove = [](const std::string* file) { std::filesystem::remove(*file); };
  const std::unique_ptr<std::string, decltype(remove)> removed(&path, remove);
  // The path is of our own making: nothing in it is the shell's.
  std::FILE* pipe = ::popen(fmt::format("dot -Tsvg '{}' 2>/dev/null", path).c_str(), "re");
  if (pipe == nullptr) throw Failure(ExitStatus::failed, errno_text("run dot"));
  std::string svg;
  std::array<char, 4096> buffer;
  while (const std::size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe)) {
    svg.append(buffer.data(), got);
  }
  if (::pclose(pipe) == 0) return svg;
  throw Failure(ExitStatus::failed,
                "a picture is drawn by Graphviz's dot, which is not here or failed: install "
                "graphviz, or take --format dot and draw it elsewhere");
}

json to_json(const Actual& actual) {
  const auto shown = [](const auto& things) {
    json list = json::array();
    for (const auto& each : things) list.push_back(each.shown);
    return list;
  };
  json hosts = json::array(), components = json::array(), vms = json::array();
  for (const auto& host : actual.hosts) {
    hosts.push_back({{"name", host.name}, {"site", host.site}, {"is_up", host.is_up}});
  }
  for (const auto& [things, list] :
       {std::pair(&actual.components, &components), std::pair(&actual.vms, &vms)}) {
    *list = shown(*things);
    for (std::size_t i = 0; i < list->size(); ++i) (*list)[i]["host"] = (*things)[i].host;
  }
  return {{"hosts", hosts},
          {"components", components},
          {"ports", shown(actual.ports)},
          {"vms", vms},
          {"wires", shown(actual.wires)}};
}

void write_out(Context& context, const TopologyWish& wish) {
  Actual actual = ask_fleet(context);
  if (!wish.topology.empty()) actual = topology::part_of(actual, wish.topology);
  if (context.as_json) return context.print_json(to_json(actual));
  context.io.out << (wish.format == "yaml"  ? topology::to_yaml(actual, wish.topology)
                     : wish.format == "dot" ? topology::to_dot(actual)
                                            : drawn(topology::to_dot(actual)));
}

CLI::App* add_verb(CLI::App& app, const char* name, const char* help, Context& context,
                   TopologyWish& wish) {
  auto* verb = app.add_subcommand(name, help);
  verb->add_option("FILE", wish.file, "The topology: YAML (docs/protocol/topology.schema.json)")
      ->type_name("FILE")
      ->required();
  add_json(*verb, context);
  return verb;
}

}  // namespace

void add_topology(CLI::App& app, Context& context) {
  const auto wish = std::make_shared<TopologyWish>();
  auto* apply_verb = add_verb(app, "apply", "Make the network what a file says, on all hosts of it",
                              context, *wish);
  apply_verb->add_flag("--dry-run", wish->dry_run, "Only print what would be done");
  apply_verb->add_flag("--prune", wish->prune,
                       "Remove what this topology made and the file has no more; disks stay");
  apply_verb->callback([&context, wish] { apply(context, *wish); });

  auto* diff_verb =
      add_verb(app, "diff", "Print what apply would do; exit status 6 if anything", context, *wish);
  diff_verb->callback([&context, wish] { diff(context, *wish); });

  auto* out = app.add_subcommand("export", "Print the network that is, of all hosts");
  out->add_option("--format", wish->format, "As a file for apply, for Graphviz, or drawn by it")
      ->check(CLI::IsMember({"yaml", "dot", "svg"}));
  add_name(*out, "--topology", wish->topology, "Only what this topology made")
      ->type_name("TOPOLOGY");
  add_json(*out, context);
  out->callback([&context, wish] { write_out(context, *wish); });
}

}  // namespace godwit::cli

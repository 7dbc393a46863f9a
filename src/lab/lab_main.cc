#include "lab/lab_main.hh"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/id.hh"
#include "lab/agents.hh"
#include "lab/config.hh"
#include "lab/control.hh"
#include "lab/enter.hh"
#include "lab/holder.hh"
#include "lab/show.hh"
#include "lab/state.hh"
#include "lab/up.hh"
#include "lab/wan.hh"

namespace godwit::lab {
namespace {

constexpr int kDone = 0;
constexpr int kFailed = 1;
constexpr int kUsage = 2;

// What the command line said; one command's worth of it is filled.
struct Arguments {
  std::string name = "lab";
  std::string config;
  std::string host;
  std::string link;
  std::string duration;
  std::string toward;
  std::string log;
  std::string directory;
  std::vector<std::string> settings;
  std::vector<std::string> paths;
  std::vector<std::string> command;  // what follows `--`
  bool no_agents = false;
  bool json = false;
  bool detached = false;
};

LabState running_lab(const std::string& name) {
  const auto state = StateDirectory(name).load();
  if (!state) {
    const auto known = known_labs();
    fail_setup("there is no lab '{}' here: {}", name,
               known.empty() ? "`godwit lab up` makes one"
                             : fmt::format("choose --name from {}", fmt::join(known, ", ")));
  }
  return *state;
}

const NodeState& node_of(const LabState& state, const std::string& name) {
  if (const NodeState* const node = state.find(name)) return *node;
  std::string known;
  for (const auto& node : state.nodes) known += (known.empty() ? "" : ", ") + node.name;
  fail_setup("there is no host '{}' in lab {}: use one of {}", name, state.name, known);
}

nlohmann::json asked(const std::string& lab, std::string_view socket,
                     const nlohmann::json& request) {
  running_lab(lab);
  auto reply = ask(StateDirectory(lab).file(socket), request);
  if (!reply) throw SetupError(reply.error().text);
  return *reply;
}

int up(const Arguments& arguments) {
  if (!is_valid_name(arguments.name))
    fail_setup("'{}' cannot name a lab: use a-z, 0-9 and -", arguments.name);
  const bool made = bring_up(
      {.name = arguments.name, .config_path = arguments.config, .agents = !arguments.no_agents});
  if (!made) fmt::print(stderr, "the lab is up already\n");
  fmt::print("{}", table_of(describe(arguments.name)));
  return kDone;
}

int down(const Arguments& arguments) {
  if (!bring_down(arguments.name)) fmt::print(stderr, "there is no lab '{}'\n", arguments.name);
  return kDone;
}

int list(const Arguments& arguments) {
  const auto lab = describe(arguments.name);
  fmt::print("{}", arguments.json ? lab.dump(2) + "\n" : table_of(lab));
  return kDone;
}

int exec(const Arguments& arguments) {
  const LabState state = running_lab(arguments.name);
  InsideCommand command{
      .argv = arguments.command, .detached = arguments.detached, .log = arguments.log};
  if (command.argv.empty()) {
    const char* const shell = std::getenv("SHELL");
    command.argv = {shell != nullptr && *shell != '\0' ? shell : "/bin/sh"};
  }
  const int status = run_inside(node_of(state, arguments.host), command);
  std::fflush(nullptr);
  ::_exit(status);  // this process is in the host's namespaces: nothing more is to run here
}

int cut(const Arguments& arguments) {
  nlohmann::json request = {{"do", "cut"}, {"link", arguments.link}};
  if (!arguments.duration.empty()) {
    const auto duration = parse_duration(arguments.duration);
    if (!duration) {
      fmt::print(stderr, "--for: {}\n", duration.error().text);
      return kUsage;
    }
    request["for_ms"] = duration_cast<milliseconds>(*duration).count();
  }
  asked(arguments.name, "wan.sock", request);
  return kDone;
}

int heal(const Arguments& arguments) {
  asked(arguments.name, "wan.sock", {{"do", "heal"}, {"link", arguments.link}});
  return kDone;
}

int set(const Arguments& arguments) {
  nlohmann::json request = {
      {"do", "set"}, {"link", arguments.link}, {"settings", nlohmann::json::object()}};
  if (!arguments.toward.empty()) request["toward"] = arguments.toward;
  for (const auto& setting : arguments.settings) {
    const auto equals = setting.find('=');
    if (equals == std::string::npos) {
      fmt::print(stderr, "'{}' is not KEY=VALUE: write rate=200mbit\n", setting);
      return kUsage;
    }
    request["settings"][setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  asked(arguments.name, "wan.sock", request);
  return kDone;
}

int kill_host(const Arguments& arguments) {
  asked(arguments.name, "holder.sock", {{"do", "kill"}, {"host", arguments.host}});
  return kDone;
}

int start_host(const Arguments& arguments) {
  const auto reply =
      asked(arguments.name, "holder.sock", {{"do", "start"}, {"host", arguments.host}});
  const LabState state = running_lab(arguments.name);
  if (state.agents && reply.value("started", false)) {
    start_agent(arguments.name, node_of(state, arguments.host));
  }
  return kDone;
}

int readdress_host(const Arguments& arguments) {
  const auto reply =
      asked(arguments.name, "holder.sock", {{"do", "readdress"}, {"host", arguments.host}});
  for (const auto& address : reply.at("addresses")) {
    fmt::print("{}\n", address.get<std::string>());
  }
  return kDone;
}

struct Action {
  CLI::App* app;
  int (*run)(const Arguments&);
};

std::vector<Action> declare(CLI::App& app, Arguments& arguments) {
  app.require_subcommand(1);
  std::vector<Action> actions;
  const auto add = [&](const char* name, const char* help, int (*run)(const Arguments&)) {
    CLI::App* const sub = app.add_subcommand(name, help);
    sub->add_option("--name", arguments.name, "Which lab")
        ->envname("GODWIT_LAB")
        ->capture_default_str();
    actions.push_back({sub, run});
    return sub;
  };
  auto* sub = add("up", "Make a lab: hosts, routers, links, agents", up);
  sub->add_option("file", arguments.config,
                  "lab.yaml (default: sites east and west, 40 ms apart); sites may be "
                  "behind a NAT, links lossy, slow, cut, or black holes for large packets");
  sub->add_flag("--no-agents", arguments.no_agents, "Start no godwitd");
  add("down", "Remove the lab", down);
  sub = add("ls", "Show hosts, links, drops, and how exact the delays are", list);
  sub->add_flag("--json", arguments.json);
  sub = add("exec", "Run a command in a host: exec HOST -- COMMAND...; without one, a shell", exec);
  sub->add_option("host", arguments.host)->required();
  sub->add_flag("--detach", arguments.detached, "Leave it running in the host");
  sub->add_option("--log", arguments.log, "With --detach: file in the host for its output");
  sub = add("cut", "Cut a link: what is under way is lost", cut);
  sub->add_option("link", arguments.link)->required();
  sub->add_option("--for", arguments.duration, "Heal it by itself after this time, like 30s");
  sub = add("heal", "End a cut", heal);
  sub->add_option("link", arguments.link)->required();
  sub = add("set", "Change a link: set LINK rate=200mbit loss=0.1% ...", set);
  sub->add_option("link", arguments.link)->required();
  sub->add_option("settings", arguments.settings, "As in lab.yaml")->required();
  sub->add_option("--toward", arguments.toward, "Only the direction toward this site");
  sub = add("kill", "Cut a host's power: all its processes end, its disk stays", kill_host);
  sub->add_option("host", arguments.host)->required();
  sub = add("readdress", "Give a host another address, as a new lease does; prints it",
            readdress_host);
  sub->add_option("host", arguments.host)->required();
  sub = add("start", "Switch a host on again", start_host);
  sub->add_option("host", arguments.host)->required();
  return actions;
}

// The lab's own processes; started by `up`, never by a person.
void declare_internal(CLI::App& app, Arguments& arguments, std::vector<Action>& actions) {
  auto* sub = app.add_subcommand("hold", "")->group("");
  sub->add_option("name", arguments.name)->required();
  sub->add_option("paths", arguments.paths);
  actions.push_back({sub, [](const Arguments& a) { return run_holder(a.name, a.paths); }});
  sub = app.add_subcommand("wan-emulator", "")->group("");
  sub->add_option("directory", arguments.directory)->required();
  actions.push_back({sub, [](const Arguments& a) { return run_wan_emulator(a.directory); }});
}

}  // namespace

int lab_main(std::span<const char* const> args) {
  Arguments arguments;
  CLI::App app("Sites, hosts and the links between them, on this machine", "godwit lab");
  auto actions = declare(app, arguments);
  declare_internal(app, arguments, actions);
  // What follows `--` is not ours to read.
  const auto dashes = std::find(args.begin(), args.end(), std::string_view("--"));
  std::vector<std::string> words(args.begin(), dashes);
  if (dashes != args.end()) arguments.command.assign(dashes + 1, args.end());
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kUsage;
  }
  try {
    for (const Action& action : actions) {
      if (action.app->parsed()) return action.run(arguments);
    }
  } catch (const std::exception& error) {
    fmt::print(stderr, "godwit lab: {}\n", error.what());
    return kFailed;
  }
  return kUsage;
}

}  // namespace godwit::lab

#include "cli/app.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <ostream>

#include "cli/complete.hh"
#include "cli/mapping.hh"
#include "cli/options.hh"
#include "manual/mdoc.hh"

namespace godwit::cli {
namespace {

constexpr const char* kFooter =
    "Units are written: 400mbit, 512MiB, 300ms. Progress goes to standard error.\n"
    "Exit status: 0 done, 1 failed, 2 usage, 3 refused by preflight (nothing changed),\n"
    "4 aborted (the source goes on), 5 undecided (godwit migration resolve) or stuck,\n"
    "6 there are differences (godwit diff).";

void build(CLI::App& app, Context& context) {
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(kFooter);
  app.add_option("-H,--host", context.host,
                 "Agent to talk to: HOST[:PORT], NAME@ADDRESS[:PORT], or unix:PATH of its socket")
      ->type_name("HOST")
      ->envname("GODWIT_HOST");
  app.add_option("--at", context.at,
                 "Host of the fleet to act on, through the agent that is spoken to")
      ->type_name("HOST")
      ->envname("GODWIT_AT");
  app.add_option("--identity", context.identity,
                 "Who you are to a remote agent (default ~/.config/godwit/identity.pem)")
      ->type_name("FILE")
      ->envname("GODWIT_IDENTITY");
  app.add_option("--socket", context.socket,
                 "Unix socket of the agent (default /run/godwit/godwitd.sock)")
      ->type_name("FILE");
  add_host(app, context);
  add_join(app, context);
  add_port(app, context);
  add_component(app, context);
  add_connect(app, context);
  add_wire(app, context);
  add_topology(app, context);
  add_pool(app, context);
  add_fabric(app, context);
  add_mapping(app, context);
  add_rule(app, context);
  add_image(app, context);
  add_vm(app, context);
  add_disk(app, context);
  add_replica(app, context);
  add_migrate(app, context);
  add_migration(app, context);
  add_user(app, context);
  add_audit(app, context);
  add_completion(app, context);
  add_doctor(app, context);
  add_debug(app, context);
  add_version(app, context);
  // Dispatched by main.cc before this parser; listed here for --help.
  app.add_subcommand("lab", "The one-machine test bed: hosts, sites and a WAN in namespaces");
}

ExitStatus parse_and_run(CLI::App& app, std::vector<std::string> arguments, Context& context) {
  try {
    std::ranges::reverse(arguments);  // CLI11 takes them from the back
    app.parse(arguments);             // runs the command
    return context.status;
  } catch (const CLI::ParseError& error) {
    // CLI11 would only say that a subcommand is required.
    const auto unknown = app.remaining(true);
    if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && !unknown.empty()) {
      context.io.err << fmt::format("godwit: there is no command '{}'; see godwit --help\n",
                                    fmt::join(unknown, " "));
      return ExitStatus::usage;
    }
    const int status = app.exit(error, context.io.out, context.io.err);
    return status == 0 ? ExitStatus::done : ExitStatus::usage;
  } catch (const Failure& failure) {
    context.io.err << "godwit: " << failure.what() << '\n';
    return failure.status();
  } catch (const json::exception& error) {
    context.io.err << "godwit: the agent's answer is not understood (is it of another version?): "
                   << error.what() << '\n';
    return ExitStatus::failed;
  } catch (const std::exception& error) {
    context.io.err << "godwit: " << error.what() << '\n';
    return ExitStatus::failed;
  }
}

}  // namespace

ExitStatus run(std::vector<std::string> arguments, Io& io) {
  Context context{.io = io, .host = {}, .at = {}, .socket = {}, .identity = {}};
  CLI::App app("Live-migrates running virtual machines and their networks between sites.",
               "godwit");
  build(app, context);
  // Asked by shells and by ./dev man, not by people: outside of the parser, which would take the
  // words of an unfinished line for its own.
  if (!arguments.empty() && arguments.front() == "complete") {
    complete(app, context, {arguments.begin() + 1, arguments.end()});
    return ExitStatus::done;
  }
  if (arguments.size() == 2 && arguments.front() == "man") {
    io.out << manual::page(app, arguments.back());
    return ExitStatus::done;
  }
  return parse_and_run(app, std::move(arguments), context);
}

}  // namespace godwit::cli

// godwit version
#include <ostream>

#include "cli/options.hh"

namespace godwit::cli {
namespace {

void print_version(Context& context) {
  json versions = {{"godwit", GODWIT_VERSION}};
  // The agent is asked, not needed.
  if (const auto reply = context.client().request("GET", "/v1/host"); reply && reply->ok()) {
    versions["agent"] = reply->body.value("version", "");
  }
  if (context.as_json) return context.print_json(versions);
  context.io.out << "godwit " << GODWIT_VERSION << '\n';
  if (versions.contains("agent")) {
    context.io.out << "agent  " << versions["agent"].get<std::string>() << '\n';
  }
}

}  // namespace

void add_version(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("version", "Print the versions of godwit and of the agent");
  add_json(*verb, context);
  verb->callback([&context] { print_version(context); });
}

}  // namespace godwit::cli

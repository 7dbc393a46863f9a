// godwit doctor
#include "doctor/examine.hh"

#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

void print(const doctor::Findings& findings, std::ostream& out) {
  std::vector<std::pair<std::string, std::string>> lines;
  for (const auto& finding : findings) {
    lines.emplace_back(fmt::format("{:<5} {}", doctor::to_text(finding.level), finding.name),
                       finding.detail);
    if (!finding.remedy.empty()) lines.emplace_back("", "-> " + finding.remedy);
  }
  out << pairs(lines);
}

void examine(Context& context, doctor::Options options) {
  options.socket = context.socket;
  const auto findings = doctor::examine(options);
  if (context.as_json) {
    context.print_json(doctor::to_json(findings));
  } else {
    print(findings, context.io.out);
  }
  if (doctor::worst(findings) == doctor::Level::fail) context.status = ExitStatus::failed;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "doctor", "Say what this host lacks and how to get it; needs no running agent");
  auto options = std::make_shared<doctor::Options>();
  verb->add_option("--reach", options->reach,
                   "Also try the way to another host: ADDRESS[:PORT] (repeatable)");
  verb->add_option("--port", options->port, "TCP and UDP port of the agents")
      ->capture_default_str();
  verb->add_option("--path-mtu", options->path_mtu,
                   "The least IP packet that the interface must carry, in bytes")
      ->capture_default_str();
  verb->add_option("--state-dir", options->state_dir, "The agent's --state-dir")
      ->capture_default_str();
  verb->add_option("--run-dir", options->run_dir, "The agent's --run-dir")->capture_default_str();
  add_json(*verb, context);
  verb->footer("Exit status: 0 nothing is missing (warnings may be), 1 something is.");
  verb->callback([&context, options] { examine(context, *options); });
}

}  // namespace godwit::cli

// godwit fabric set|show|rm: the routed data centre in which guests keep their addresses.
#include <ostream>

#include "base/utc_text.hh"
#include "cli/options.hh"
#include "cli/table.hh"
#include "cli/yaml_document.hh"
#include "translate/fabric.hh"

namespace godwit::cli {
namespace {

void set_fabric(const Context& context, const std::string& file) {
  auto document = read_yaml(file);
  if (!document) throw Failure(ExitStatus::usage, document.error().text);
  const auto fabric = translate::parse_fabric(document->value);
  if (!fabric) throw failure_of(ExitStatus::usage, *document, fabric.error());
  const json told = context.post("/v1/fabric", document->value);
  if (context.as_json) return context.print_json(told);
  context.say(fmt::format("fabric {}: {} devices; all hosts of the fleet are told", fabric->name,
                          fabric->devices.size()));
}

// What is left of a guest's life at another address.
std::string endpoint_text(const json& relocation) {
  const json lead = relocation.value("lead", json::object());
  const json alive = lead.value("alive", json::object());
  const json relay = lead.value("relay", json::object());
  std::string text =
      fmt::format("port {} came from {}: {} older connections are direct, {} relayed",
                  text_of(relocation, "port"), text_of(relocation, "from"),
                  alive.value("direct", 0U), alive.value("relayed", 0U));
  if (!relay.empty()) {
    text += fmt::format(" by {} until {}", text_of(relay, "port"),
                        utc_text(relay.value("until", std::time_t{0})));
  }
  if (const std::string next = lead.value("went_on_to", ""); !next.empty()) {
    text += fmt::format("; it went on to {}", next);
  }
  if (const auto reset = lead.value("reset", 0U); reset > 0) {
    text += fmt::format("; {} were reset as the relay's time was over", reset);
  }
  const std::string waits = relocation.value("waits_for", "");
  return text + (waits.empty() ? "\n" : fmt::format("; not told yet: {}\n", waits));
}

void show_fabric(const Context& context) {
  const json told = context.fetch("/v1/fabric");
  if (context.as_json) return context.print_json(told);
  if (told.at("file").is_null()) {
    context.io.out << "no fabric is known: godwit fabric set FILE\n";
    return;
  }
  const auto fabric = translate::parse_fabric(told.at("file"));
  if (!fabric) throw Failure(ExitStatus::failed, "the agent has a fabric that cannot be read");
  Table table({{"DEVICE"}, {"TIER"}, {"AGENT"}, {"NETWORKS"}, {"LOCATORS"}, {""}});
  const auto texts = [](const std::vector<IpPrefix>& prefixes) {
    std::string text;
    for (const IpPrefix& each : prefixes) text += (text.empty() ? "" : " ") + each.text();
    return text;
  };
  for (const auto& device : fabric->devices) {
    table.row({device.name, fabric->tiers[device.tier], device.agent, texts(device.networks),
               texts(device.locators), device.is_outside ? "to the outside" : ""});
  }
  context.io.out << table.text("no devices");
  for (const json& each : told.at("relocations")) {
    if (each.value("strategy", "") == "endpoint") {
      context.io.out << endpoint_text(each);
      continue;
    }
    const std::string waits = each.value("waits_for", "");
    context.io.out << fmt::format("port {} comes from {}: {}{}{}\n", text_of(each, "port"),
                                  text_of(each, "from"), text_of(each, "phase"),
                                  waits.empty() ? "" : ", waits for ", waits);
  }
}

}  // namespace

void add_fabric(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand(
      "fabric", "The routed data centre in which guests keep their addresses (strategy nat)");
  noun->require_subcommand(1);
  auto* set = noun->add_subcommand("set", "Tell it to all hosts of the fleet");
  auto file = std::make_shared<std::string>();
  set->add_option("file", *file, "Its tiers, devices and networks (YAML; godwit rule plan)")
      ->required()
      ->check(CLI::ExistingFile)
      ->type_name("FILE");
  add_json(*set, context);
  set->callback([&context, file] { set_fabric(context, *file); });

  auto* show = noun->add_subcommand("show", "What is known of it, and which guests change places");
  add_json(*show, context);
  show->callback([&context] { show_fabric(context); });

  auto* rm = noun->add_subcommand("rm", "Forget it: no guest moves so any more; rules stay");
  rm->callback([&context] {
    context.remove("/v1/fabric");
    context.say("the fabric is forgotten");
  });
}

}  // namespace godwit::cli

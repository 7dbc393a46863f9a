// godwit connect, disconnect, wire ls|show
#include <ostream>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

// {port, host} -> "HOST/PORT"
std::string end_of(const json& wire, const char* which) {
  const json end = wire.value(which, json::object());
  return fmt::format("{}/{}", text_of(end, "host"), text_of(end, "port"));
}

// "10.0.0.1:4747", "10.0.0.3:4747 via c1", "10.0.0.1:4747 (no answer)"
std::string path_of(const json& wire) {
  std::string text = text_of(wire, "path");
  if (const std::string via = wire.value("via", ""); !via.empty()) text += " via " + via;
  const std::string state = wire.value("path_state", "");
  if (state == "lost") text += " (no answer)";
  if (state == "unproven") text += " (unproven)";
  return text;
}

double dropped(const json& wire) {
  const json drops = wire.value("drops", json::object());
  double sum = 0;
  for (const auto& [cause, count] : drops.items()) {
    sum += count.is_number() ? count.get<double>() : 0.0;
  }
  return sum;
}

std::string traffic(const json& wire, const char* direction) {
  const json counters = wire.value(direction, json::object());
  return fmt::format("{} frames, {}", text_of(counters, "frames"), bytes_of(counters, "bytes"));
}

void list_wires(Context& context) {
  const json wires = context.fetch("/v1/wires");
  if (context.as_json) return context.print_json(wires);
  Table table({{"WIRE"},
               {"A"},
               {"B"},
               {"STATE"},
               {"EPOCH", Align::right},
               {"PATH"},
               {"MTU", Align::right},
               {"RTT", Align::right},
               {"TX", Align::right},
               {"RX", Align::right},
               {"DROPS", Align::right}});
  for (const json& wire : wires) {
    table.row({text_of(wire, "id").substr(0, 8), end_of(wire, "a"), end_of(wire, "b"),
               text_of(wire, "state"), text_of(wire, "epoch"), path_of(wire), text_of(wire, "mtu"),
               ms_of(wire, "rtt_ms"), bytes_of(wire.value("tx", json::object()), "bytes"),
               bytes_of(wire.value("rx", json::object()), "bytes"),
               fmt::format("{:.0f}", dropped(wire))});
  }
  context.io.out << table.text("no wires");
}

// By the start of its id, or by one of its ports.
bool is_meant(const json& wire, const std::string& which) {
  const auto port = [&](const char* end) {
    return wire.value(end, json::object()).value("port", "") == which;
  };
  return wire.value("id", "").starts_with(which) || port("a") || port("b");
}

void show_wire(Context& context, const std::string& which) {
  json found;
  for (const json& wire : context.fetch("/v1/wires")) {
    if (!is_meant(wire, which)) continue;
    if (!found.is_null()) {
      throw Failure(ExitStatus::failed,
                    fmt::format("'{}' means several wires: give more of the id", which));
    }
    found = wire;
  }
  if (found.is_null()) {
    throw Failure(ExitStatus::failed, fmt::format("no wire '{}': see `godwit wire ls`", which));
  }
  if (context.as_json) return context.print_json(found);
  context.io.out << pairs({{"wire", text_of(found, "id")},
                           {"a", end_of(found, "a")},
                           {"b", end_of(found, "b")},
                           {"state", text_of(found, "state")},
                           {"epoch", text_of(found, "epoch")},
                           {"path", path_of(found)},
                           {"mtu", text_of(found, "mtu")},
                           {"rtt", ms_of(found, "rtt_ms")},
                           {"sent", traffic(found, "tx")},
                           {"received", traffic(found, "rx")}});
  const json drops = found.value("drops", json::object());
  Table table({{"DROPPED BECAUSE"}, {"FRAMES", Align::right}});
  for (const auto& [cause, count] : drops.items()) table.row({cause, count.dump()});
  context.io.out << '\n' << table.text("nothing dropped");
}

CLI::App* add_verb(CLI::App& app, const char* name, const char* help,
                   const std::shared_ptr<std::pair<std::string, std::string>>& ends) {
  auto* verb = app.add_subcommand(name, help);
  verb->add_option(
          "A", ends->first,
          "Port, or HOST/PORT where the name is not unique, or HOST@FLEET/PORT of another fleet")
      ->type_name("PORT")
      ->required();
  verb->add_option("B", ends->second, "The other port")->type_name("PORT")->required();
  return verb;
}

}  // namespace

void add_connect(CLI::App& app, Context& context) {
  auto ends = std::make_shared<std::pair<std::string, std::string>>();
  auto* connect = add_verb(app, "connect", "Join two ports with a wire", ends);
  add_json(*connect, context);
  connect->callback([&context, ends] {
    const json wire = context.post("/v1/wires", {{"a", ends->first}, {"b", ends->second}});
    if (context.as_json) return context.print_json(wire);
    context.say(fmt::format("{} and {} are connected", ends->first, ends->second));
  });
  auto cut = std::make_shared<std::pair<std::string, std::string>>();
  auto* disconnect = add_verb(app, "disconnect", "Cut the wire between two ports", cut);
  disconnect->callback([&context, cut] {
    context.remove("/v1/wires", {{"a", cut->first}, {"b", cut->second}});
    context.say(fmt::format("{} and {} are not connected", cut->first, cut->second));
  });
}

void add_wire(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("wire", "Wires and their counters")->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the wires that end at this agent");
  add_json(*ls, context);
  ls->callback([&context] { list_wires(context); });
  auto* show = noun->add_subcommand("show", "Show one wire: by its id or one of its ports");
  auto which = std::make_shared<std::string>();
  show->add_option("WIRE", *which, "Start of the id, or a port")->required();
  add_json(*show, context);
  show->callback([&context, which] { show_wire(context, *which); });
}

}  // namespace godwit::cli

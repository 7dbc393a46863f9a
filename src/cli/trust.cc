// godwit host trust offer|add|ls|show|rm
#include "cli/trust.hh"

#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "cli/options.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

constexpr std::size_t kMaxCardBytes = 64 * 1024;

// In groups that can be read out.
std::string spoken(const std::string& fingerprint) {
  std::string text;
  for (std::size_t i = 0; i < fingerprint.size(); ++i) {
    if (i > 0 && i % 4 == 0) text += ' ';
    text += fingerprint[i];
  }
  return text;
}

std::string spoken_of(const json& object) { return spoken(object.value("fingerprint", "")); }

void offer(Context& context) {
  const json card = context.fetch("/v1/card");
  context.io.out << card.dump(2) << '\n';
  if (context.as_json) return;
  context.io.err
      << "This is no secret, but it must not be changed on its way: give it to the other "
         "fleet's operator,\nwho compares its fingerprint with you:\n"
      << spoken_of(card) << '\n';
}

json read_card(const std::string& file) {
  std::ifstream opened;
  if (file != "-") {
    opened.open(file);
    if (!opened) throw Failure(ExitStatus::failed, fmt::format("cannot read {}", file));
  }
  std::istream& in = file == "-" ? std::cin : opened;
  std::string text(kMaxCardBytes, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  json card = json::parse(text, nullptr, false);
  if (card.is_object()) return card;
  throw Failure(ExitStatus::failed,
                fmt::format("{} holds no card: it is what `godwit host trust offer` prints on a "
                            "host of the other fleet",
                            file == "-" ? "standard input" : file));
}

struct Wish {
  std::string card, as, tenant;
  std::vector<std::string> ports;
};

void add_fleet(Context& context, const Wish& wish) {
  json body = {{"card", read_card(wish.card)}, {"ports", wish.ports}};
  set_if_given(body, "as", wish.as);
  set_if_given(body, "tenant", wish.tenant);
  const json added = context.post("/v1/trust", body);
  if (context.as_json) return context.print_json(added);
  context.say(fmt::format("fleet {} may have wires to {}; its host {} is dialled",
                          text_of(added, "fleet"), fmt::join(wish.ports, ", "),
                          text_of(added, "host")));
  context.io.err << "Compare the fingerprint with its operator:\n" << spoken_of(added) << '\n';
}

std::string ports_of(const json& fleet) {
  std::vector<std::string> names;
  for (const json& port : fleet.value("ports", json::array())) {
    names.push_back(text_of(port, "name"));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

void list_fleets(Context& context) {
  const json fleets = context.fetch("/v1/trust");
  if (context.as_json) return context.print_json(fleets);
  Table table({{"FLEET"}, {"PORTS"}, {"HOSTS"}, {"UP", Align::right}});
  for (const json& fleet : fleets) {
    std::vector<std::string> names;
    int up = 0;
    for (const json& host : fleet.value("hosts", json::array())) {
      names.push_back(text_of(host, "name"));
      up += host.value("state", "") == "up" ? 1 : 0;
    }
    table.row({text_of(fleet, "fleet"), ports_of(fleet), fmt::format("{}", fmt::join(names, ", ")),
               std::to_string(up)});
  }
  context.io.out << table.text("no other fleet is trusted");
}

void show_fleet(Context& context, const std::string& name) {
  for (const json& fleet : context.fetch("/v1/trust")) {
    if (fleet.value("fleet", "") != name) continue;
    if (context.as_json) return context.print_json(fleet);
    context.io.out << pairs({{"fleet", name}, {"fingerprint", spoken_of(fleet)}});
    Table ports({{"PORT"}, {"TENANT"}});
    for (const json& port : fleet.value("ports", json::array())) {
      ports.row({text_of(port, "name"), text_of(port, "tenant")});
    }
    Table hosts({{"HOST"}, {"ADDRESS"}, {"STATE"}, {"RTT", Align::right}, {"BECAUSE"}});
    for (const json& host : fleet.value("hosts", json::array())) {
      hosts.row({text_of(host, "name"), text_of(host, "address"), text_of(host, "state"),
                 ms_of(host, "rtt_ms"), text_of(host, "error")});
    }
    context.io.out << '\n' << ports.text("no ports") << '\n' << hosts.text("no hosts");
    return;
  }
  throw Failure(ExitStatus::failed,
                fmt::format("fleet '{}' is not trusted: see `godwit host trust ls`", name));
}

void remove_fleet(Context& context, const std::string& name,
                  const std::vector<std::string>& ports) {
  const json body = ports.empty() ? json(nullptr) : json{{"ports", ports}};
  context.remove(path_of("trust", name), body);
  context.say(ports.empty()
                  ? fmt::format("fleet {} is not trusted", name)
                  : fmt::format("fleet {} is not trusted for {}", name, fmt::join(ports, ", ")));
}

void add_ports(CLI::App& app, std::vector<std::string>& ports, const std::string& help) {
  app.add_option("--port", ports, help)->type_name("PORT")->expected(1)->take_all();
}

}  // namespace

json trusted_hosts(const Context& context) {
  const auto reply = context.client().request("GET", "/v1/trust", nullptr);
  json hosts = json::array();
  if (!reply || !reply->ok()) return hosts;  // an older agent has none
  for (const json& fleet : reply->body) {
    for (json host : fleet.value("hosts", json::array())) {
      host["fleet"] = fleet.value("fleet", "");
      hosts.push_back(std::move(host));
    }
  }
  return hosts;
}

void add_trust(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("trust", "Other fleets that may have wires to named ports");
  noun->require_subcommand(1);
  auto* card = noun->add_subcommand("offer", "Print the card that another fleet's host is to add");
  add_json(*card, context);
  card->callback([&context] { offer(context); });

  auto* add = noun->add_subcommand("add", "Trust the fleet of a card for wires to these ports");
  auto wish = std::make_shared<Wish>();
  add->add_option("FILE", wish->card,
                  "What `host trust offer` printed there; - reads it from "
                  "standard input")
      ->required();
  add_ports(*add, wish->ports, "A port of this host (repeatable)");
  add->get_option("--port")->required();
  add_name(*add, "--as", wish->as, "What to call that fleet here (default: its own name)")
      ->type_name("NAME");
  add_name(*add, "--tenant", wish->tenant, "Whose ports they have to be (default: whose they are)")
      ->type_name("TENANT");
  add_json(*add, context);
  add->callback([&context, wish] { add_fleet(context, *wish); });

  auto* ls = noun->add_subcommand("ls", "List the fleets that are trusted");
  add_json(*ls, context);
  ls->callback([&context] { list_fleets(context); });

  auto* show = noun->add_subcommand("show", "Show one of them, and why its hosts are not up");
  auto shown = std::make_shared<std::string>();
  add_name(*show, "FLEET", *shown, "Its name here")->required();
  add_json(*show, context);
  show->callback([&context, shown] { show_fleet(context, *shown); });

  auto* rm = noun->add_subcommand("rm", "Trust it no more: its wires here are cut at once");
  auto gone = std::make_shared<Wish>();
  add_name(*rm, "FLEET", gone->as, "Its name here")->required();
  add_ports(*rm, gone->ports, "For this port only (repeatable)");
  rm->callback([&context, gone] { remove_fleet(context, gone->as, gone->ports); });
}

}  // namespace godwit::cli

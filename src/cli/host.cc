// godwit host ls|show|invite|trust, godwit join
#include <iostream>
#include <string>

#include "cli/options.hh"
#include "cli/table.hh"
#include "cli/trust.hh"

namespace godwit::cli {
namespace {

void list_hosts(Context& context) {
  json hosts = context.fetch("/v1/hosts");
  for (json& host : trusted_hosts(context)) hosts.push_back(std::move(host));
  if (context.as_json) return context.print_json(hosts);
  Table table({{"HOST"}, {"SITE"}, {"ADDRESS"}, {"STATE"}, {"RTT", Align::right}});
  for (const json& host : hosts) {
    table.row({text_of(host, "name"), text_of(host, "site"), text_of(host, "address"),
               text_of(host, "state"), ms_of(host, "rtt_ms")});
  }
  context.io.out << table.text("no hosts");
}

// Where datagrams to each peer go, and which other ways are known.
std::string paths_of(const json& host) {
  Table table(
      {{"WIRES TO"}, {"PATH"}, {"VIA"}, {"STATE"}, {"MTU", Align::right}, {"RTT", Align::right}});
  for (const json& peer : host.value("paths", json::array())) {
    for (const json& path : peer.value("paths", json::array())) {
      const bool active = path.value("active", false);
      const std::string state = active                         ? peer.value("state", "")
                                : path.value("answers", false) ? "spare"
                                                               : "no answer";
      table.row({text_of(peer, "peer"), text_of(path, "address"), text_of(path, "via"), state,
                 text_of(path, "mtu"), ms_of(path, "rtt_ms")});
    }
  }
  return table.text("no paths for wires");
}

void show_this_host(Context& context) {
  const json host = context.fetch("/v1/host");
  if (context.as_json) return context.print_json(host);
  context.io.out << pairs(
      {{"host", text_of(host, "name")},
       {"site", text_of(host, "site")},
       {"fleet", text_of(host, "fleet") + (host.value("founder", false) ? " (its founder)" : "")},
       {"address", text_of(host, "address")},
       {"port", text_of(host, "port")},
       {"accelerator", text_of(host, "accelerator")},
       {"version", text_of(host, "version")}});
  Table table({{"PEER"}, {"STATE"}, {"RTT", Align::right}, {"VIA"}, {"VERSION"}});
  for (const json& session : host.value("sessions", json::array())) {
    table.row({text_of(session, "peer"), text_of(session, "state"), ms_of(session, "rtt_ms"),
               text_of(session, "via"), text_of(session, "version")});
  }
  context.io.out << '\n' << table.text("no sessions with other hosts");
  context.io.out << '\n' << paths_of(host);
  const json relayed = host.value("relayed", json::object());
  if (relayed.value("datagrams", 0U) > 0) {
    context.io.out << fmt::format("\nforwarded for others: {} datagrams, {}\n",
                                  text_of(relayed, "datagrams"), bytes_of(relayed, "bytes"));
  }
}

void show_host(Context& context, const std::string& name) {
  if (name.empty()) return show_this_host(context);
  json hosts = context.fetch("/v1/hosts");
  for (json& host : trusted_hosts(context)) hosts.push_back(std::move(host));
  for (const json& host : hosts) {
    if (host.value("name", "") != name) continue;
    if (host.value("state", "") == "self") return show_this_host(context);
    if (context.as_json) return context.print_json(host);
    context.io.out << pairs({{"host", name},
                             {"site", text_of(host, "site")},
                             {"address", text_of(host, "address")},
                             {"state", text_of(host, "state")},
                             {"rtt", ms_of(host, "rtt_ms")}});
    return;
  }
  throw Failure(ExitStatus::failed,
                fmt::format("no host '{}' in this fleet: see `godwit host ls`", name));
}

void invite(Context& context, const std::string& ttl) {
  json body = json::object();
  set_if_given(body, "ttl", ttl);
  const json invitation = context.post("/v1/invites", body);
  if (context.as_json) return context.print_json(invitation);
  context.io.out << text_of(invitation, "command") << '\n';
  context.io.err << "Run this line on the new host; it works once, until "
                 << text_of(invitation, "expires") << ".\n";
}

// "-": from standard input, so that the secret is not in the list of processes.
void join(Context& context, std::string target) {
  if (target == "-") {
    std::getline(std::cin >> std::ws, target);
    target.erase(target.find_last_not_of(" \t\r") + 1);
  }
  const json joined = context.post("/v1/join", {{"target", target}});
  if (context.as_json) return context.print_json(joined);
  std::string names;
  for (const json& host : joined.value("hosts", json::array())) {
    names += (names.empty() ? "" : ", ") +
             (host.is_string() ? host.get<std::string>() : text_of(host, "name"));
  }
  context.say(fmt::format("joined fleet {}: {}", text_of(joined, "fleet"), names));
}

}  // namespace

void add_host(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("host", "Hosts of the fleet")->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List the hosts this agent knows");
  add_json(*ls, context);
  ls->callback([&context] { list_hosts(context); });

  auto* show = noun->add_subcommand("show", "Show one host (default: the agent's own)");
  auto name = std::make_shared<std::string>();
  show->add_option("HOST", *name, "Its name");
  add_json(*show, context);
  show->callback([&context, name] { show_host(context, *name); });

  auto* invitation = noun->add_subcommand("invite", "Print the line that joins another host");
  auto ttl = std::make_shared<std::string>();
  add_duration(*invitation, "--ttl", *ttl, "How long the invitation is good for (default 1h)");
  add_json(*invitation, context);
  invitation->callback([&context, ttl] { invite(context, *ttl); });
  add_trust(*noun, context);
}

void add_join(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("join", "Join a fleet with the line that `host invite` printed");
  auto target = std::make_shared<std::string>();
  verb->add_option("TOKEN@HOST", *target, "TOKEN@HOST[:PORT]; - reads it from standard input")
      ->required()
      ->check([](const std::string& text) {
        const std::size_t at = text.find('@');
        const bool good =
            text == "-" || (at != std::string::npos && at > 0 && at + 1 < text.size());
        return good ? std::string() : "this is not TOKEN@HOST: paste the invited line";
      });
  add_json(*verb, context);
  verb->callback([&context, target] { join(context, *target); });
}

}  // namespace godwit::cli

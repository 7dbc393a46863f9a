// godwit rule ls|verify|prune: what displaced guests have on the devices of the fabric.
#include <algorithm>
#include <map>
#include <ostream>
#include <set>

#include "cli/options.hh"
#include "cli/rule_text.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

constexpr std::size_t kIdLength = 32;

void name_silent(const Context& context, const json& answer) {
  for (const json& each : answer.value("silent", json::array())) {
    context.io.err << fmt::format("device {} was not asked: {}\n", text_of(each, "host"),
                                  text_of(each, "reason"));
  }
}

void list_rules(Context& context, bool of_all) {
  const json answer = context.fetch(of_all ? "/v1/fleet-rules" : "/v1/rules");
  if (context.as_json) return context.print_json(answer);
  const json rules = of_all ? answer.value("rules", json::array()) : answer;
  std::vector<Column> columns{{"ID"},      {"GUEST"}, {"EPOCH", Align::right},
                              {"PHASE"},   {"KIND"},  {"ADDRESS"},
                              {"BECOMES"}, {"STATE"}, {"PACKETS", Align::right}};
  if (of_all) columns.insert(columns.begin(), {"DEVICE"});
  Table table(std::move(columns));
  for (const json& rule : rules) {
    std::vector<std::string> cells{text_of(rule, "guest").substr(0, 8),
                                   text_of(rule, "name"),
                                   text_of(rule, "epoch"),
                                   text_of(rule, "phase"),
                                   text_of(rule, "kind"),
                                   text_of(rule, "match"),
                                   text_of(rule, "becomes"),
                                   rule.value("staged", false) ? "staged" : "active",
                                   text_of(rule, "packets")};
    if (of_all) cells.insert(cells.begin(), text_of(rule, "host"));
    table.row(std::move(cells));
  }
  context.io.out << table.text("no rules");
  if (of_all) name_silent(context, answer);
}

// Line by line what is wrong with the device.
void show_verdict(const Context& context, const json& verdict) {
  const std::string host = text_of(verdict, "host");
  const auto show = [&](const char* key, const char* what) {
    for (const json& rule : verdict.value(key, json::array())) {
      context.io.out << fmt::format("{}: {}: {}\n", host, what, rule_text(rule));
    }
  };
  show("missing", "missing");
  show("claims_missing", "missing");
  show("foreign", "foreign");
  for (const json& family : verdict.value("forwarding_off", json::array())) {
    context.io.out << fmt::format("{}: {} packets are not forwarded\n", host,
                                  family.is_string() ? family.get<std::string>() : "?");
  }
}

void verify_rules(Context& context) {
  const json answer = context.fetch("/v1/rules/verify");
  const json hosts = answer.value("hosts", json::array());
  const json silent = answer.value("silent", json::array());
  const auto is_wrong = [](const json& verdict) { return !verdict.value("ok", false); };
  const auto wrong = std::ranges::count_if(hosts, is_wrong);
  if (wrong > 0 || !silent.empty()) context.status = ExitStatus::failed;
  if (context.as_json) return context.print_json(answer);
  for (const json& verdict : hosts) show_verdict(context, verdict);
  name_silent(context, answer);
  if (wrong > 0) {
    context.io.err << fmt::format(
        "{} of {} devices differ from what they shall have; their agents repair them within "
        "seconds, `godwit rule prune` at once, and says what hinders it\n",
        wrong, hosts.size());
  } else if (silent.empty()) {
    context.say(fmt::format("all rules of {} devices are as they shall be", hosts.size()));
  }
}

// ---- prune ----

struct PruneWish {
  std::string guest;
  bool dry_run = false;
};

// The id: whole, or of the only guest that has this name, or whose id begins so.
std::string guest_id(const json& rules, const std::string& said) {
  std::set<std::string> ids;
  for (const json& rule : rules) {
    const std::string id = rule.value("guest", "");
    if (id.starts_with(said) || rule.value("name", "") == said) ids.insert(id);
  }
  if (ids.size() == 1) return *ids.begin();
  if (ids.empty() && said.size() == kIdLength) return said;  // a version may be left of it
  if (ids.empty()) {
    throw Failure(ExitStatus::failed,
                  fmt::format("no device has rules of guest '{}': see godwit rule ls --all", said));
  }
  throw Failure(ExitStatus::failed,
                fmt::format("several guests are called '{}': give the id of one, see godwit rule "
                            "ls --all",
                            said));
}

// As POST /v1/rules/prune would answer.
json would_repair(const Context& context) {
  const json answer = context.fetch("/v1/rules/verify");
  json hosts = json::array();
  for (const json& each : answer.value("hosts", json::array())) {
    json written = each.value("missing", json::array());
    for (const json& rule : each.value("claims_missing", json::array())) written.push_back(rule);
    hosts.push_back({{"host", text_of(each, "host")},
                     {"removed", each.value("foreign", json::array())},
                     {"written", written}});
  }
  return {{"hosts", hosts}, {"silent", answer.value("silent", json::array())}};
}

json would_forget(const Context& context, const std::string& guest) {
  const json answer = context.fetch("/v1/fleet-rules");
  const json rules = answer.value("rules", json::array());
  const std::string id = guest_id(rules, guest);
  std::map<std::string, json> removed;
  for (const json& rule : rules) {
    if (rule.value("guest", "") == id) removed[text_of(rule, "host")].push_back(rule);
  }
  json hosts = json::array();
  for (const auto& [host, its] : removed) hosts.push_back({{"host", host}, {"removed", its}});
  return {{"hosts", hosts}, {"silent", answer.value("silent", json::array())}};
}

json would_prune(const Context& context, const PruneWish& wish) {
  return wish.guest.empty() ? would_repair(context) : would_forget(context, wish.guest);
}

json pruned(const Context& context, const PruneWish& wish) {
  if (wish.guest.empty()) return context.post("/v1/rules/prune");
  const json known = context.fetch("/v1/fleet-rules").value("rules", json::array());
  return context.post("/v1/rules/prune", {{"guest", guest_id(known, wish.guest)}});
}

void prune_rules(Context& context, const PruneWish& wish) {
  const json answer = wish.dry_run ? would_prune(context, wish) : pruned(context, wish);
  if (!answer.value("silent", json::array()).empty()) context.status = ExitStatus::failed;
  if (context.as_json) return context.print_json(answer);
  std::size_t changes = 0;
  for (const json& host : answer.value("hosts", json::array())) {
    for (const auto& [key, sign] : {std::pair("removed", '-'), {"written", '+'}}) {
      for (const json& rule : host.value(key, json::array())) {
        context.io.out << fmt::format("{}  {} {}\n", text_of(host, "host"), sign, rule_text(rule));
        ++changes;
      }
    }
  }
  if (changes == 0) context.say("no rule was to be removed or written");
  name_silent(context, answer);
}

}  // namespace

void add_rule(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("rule", "Address rewriting in a routed data centre");
  noun->require_subcommand(1);
  add_rule_plan(*noun, context);

  auto* ls = noun->add_subcommand("ls", "List what displaced guests have on this agent's device");
  auto of_all = std::make_shared<bool>();
  ls->add_flag("--all", *of_all, "On all devices of the fleet");
  add_json(*ls, context);
  ls->callback([&context, of_all] { list_rules(context, *of_all); });

  auto* verify = noun->add_subcommand(
      "verify",
      "Compare all devices' kernels with what they shall have; exit status 1 if they "
      "differ, or one cannot be asked");
  add_json(*verify, context);
  verify->callback([&context] { verify_rules(context); });

  auto* prune = noun->add_subcommand(
      "prune", "Remove from all devices what is nobody's, and write what is missing");
  auto wish = std::make_shared<PruneWish>();
  prune
      ->add_option("--guest", wish->guest,
                   "Instead: remove all that this guest has, by its name or id; it is not reached "
                   "any more but at home")
      ->type_name("GUEST");
  prune->add_flag("--dry-run", wish->dry_run, "Only print what would be done");
  add_json(*prune, context);
  prune->callback([&context, wish] { prune_rules(context, *wish); });
}

}  // namespace godwit::cli

// godwit mapping ls: where guests are that left their home.
#include "cli/mapping.hh"

#include <ostream>

#include "base/units.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

std::string age_of(const json& mapping) {
  const double age = number_of(mapping, "age_s");
  return mapping.contains("age_s") ? to_text(seconds(static_cast<std::int64_t>(age))) : "-";
}

std::string published(const json& mapping) {
  if (mapping.value("published", false)) return "yes";
  const std::string other = mapping.value("superseded_by", "");
  return other.empty() ? "not yet" : fmt::format("no: host {} was later", other);
}

json addresses_of(const json& association) { return association.value("addresses", json::array()); }

void list_mappings(const Context& context, const std::string& vm) {
  json told = context.fetch("/v1/mappings");
  if (!vm.empty()) {
    json some = json::array();
    for (const json& each : told.at("mappings")) {
      if (text_of(each, "vm") == vm) some.push_back(each);
    }
    told["mappings"] = some;
    told["associations"] = json::array();  // these know guests by their ports
  }
  if (context.as_json) return context.print_json(told);
  Table table({{"VM"},
               {"HOME"},
               {"NOW"},
               {"HOST"},
               {"EPOCH", Align::right},
               {"AGE", Align::right},
               {"PUBLISHED"}});
  const bool is_published = told.at("etcd").value("configured", false);
  for (const json& each : told.at("mappings")) {
    table.row({text_of(each, "vm"), text_of(each, "home"), text_of(each, "mobile"),
               text_of(each, "holder"), fmt::format("{}", each.value("epoch", 0U)), age_of(each),
               is_published ? published(each) : "no"});
  }
  context.io.out << table.text("no guest is away from its home");
  for (const json& each : told.at("associations")) {
    for (const json& address : addresses_of(each)) {
      context.io.out << fmt::format(
          "{} behind port {} is at host {}: its connections from here "
          "are led there\n",
          address.get<std::string>(), text_of(each, "guest"), text_of(each, "host"));
    }
  }
  if (const std::string trouble = told.at("etcd").value("trouble", ""); !trouble.empty()) {
    context.io.err << fmt::format("godwit: etcd was not asked: {}; this is what {} knows itself\n",
                                  trouble, context.at.empty() ? "this host" : context.at);
  } else if (!is_published) {
    context.io.err << "godwit: nothing is published (godwitd --etcd): this is what the host knows "
                      "itself\n";
  }
}

}  // namespace

void add_mapping(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand(
      "mapping",
      "Guests that left their home, and the addresses at which new connections find them");
  noun->require_subcommand(1);
  auto* ls = noun->add_subcommand("ls", "List them, as the fleet's etcd has them");
  auto vm = std::make_shared<std::string>();
  ls->add_option("vm", *vm, "Of this vm only")->type_name("VM");
  add_json(*ls, context);
  ls->callback([&context, vm] { list_mappings(context, *vm); });
}

}  // namespace godwit::cli

#include "cli/complete.hh"

#include "cli/trust.hh"

#include <unistd.h>

#include <cstdlib>
#include <map>
#include <ostream>

namespace godwit::cli {
namespace {

constexpr unsigned kPatienceS = 2;  // for the agent, while somebody waits at a prompt

using Candidates = std::map<std::string, std::string>;  // with what they are

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// Where the words lead: the command, what it has been given, and what the last word is for.
struct Place {
  const CLI::App* app;
  std::vector<const CLI::App*> path;          // app and those above it
  std::size_t positionals = 0;                // given to app
  const CLI::Option* pending = nullptr;       // an option whose value comes next
  std::map<std::string, std::string> values;  // of options for all commands, by long name
};

const CLI::Option* find_option(const Place& place, const std::string& word) {
  for (const CLI::App* app : place.path) {
    for (const CLI::Option* option : app->get_options()) {
      if (option->nonpositional() && option->check_name(word)) return option;
    }
  }
  return nullptr;
}

bool takes_value(const CLI::Option& option) { return option.get_items_expected_max() > 0; }

std::string long_name(const CLI::Option& option) {
  return option.get_lnames().empty() ? std::string() : option.get_lnames().front();
}

// Of those that are for all commands; one of them may have another of the same name.
void keep_value(Place& place, const CLI::Option& option, const std::string& value) {
  for (const CLI::Option* global : place.path.back()->get_options()) {
    if (global == &option) place.values[long_name(option)] = value;
  }
}

const CLI::App* subcommand(const CLI::App& app, const std::string& name) {
  const auto found =
      app.get_subcommands([&](const CLI::App* sub) { return sub->check_name(name); });
  return found.empty() ? nullptr : found.front();
}

void step(Place& place, const std::string& word) {
  if (place.pending != nullptr) {
    keep_value(place, *place.pending, word);
    place.pending = nullptr;
  } else if (word.starts_with('-')) {
    const std::size_t equals = word.find('=');
    const CLI::Option* option = find_option(place, word.substr(0, equals));
    if (option == nullptr || !takes_value(*option)) return;
    if (equals == std::string::npos) {
      place.pending = option;
    } else {
      keep_value(place, *option, word.substr(equals + 1));
    }
  } else if (const CLI::App* sub = subcommand(*place.app, word)) {
    place.app = sub;
    place.path.insert(place.path.begin(), sub);
    place.positionals = 0;
  } else {
    ++place.positionals;
  }
}

// ---- what the agent knows ----

void add_names(Candidates& out, const json& list, const char* key, const char* about) {
  for (const json& item : list) {
    const std::string name = item.value(key, "");
    if (!name.empty()) out[name] = item.value(about, "");
  }
}

Candidates names_of(const std::string& kind, const Context& context) {
  Candidates out;
  if (kind == "COMPONENT") add_names(out, context.fetch("/v1/components"), "name", "type");
  if (kind == "VM" || kind == "MOVABLE") {
    add_names(out, context.fetch("/v1/vms"), "name", "state");
  }
  if (kind == "MOVABLE") {
    for (const json& component : context.fetch("/v1/components")) {
      out["component/" + component.value("name", "")] = component.value("type", "");
    }
  }
  if (kind == "MIGRATION") add_names(out, context.fetch("/v1/migrations"), "id", "vm");
  if (kind == "WIRE") add_names(out, context.fetch("/v1/wires"), "id", "state");
  if (kind == "PORT") add_names(out, context.fetch("/v1/ports"), "name", "kind");
  if (kind == "IMAGE") add_names(out, context.fetch("/v1/images"), "name", "state");
  if (kind == "FLEET") add_names(out, context.fetch("/v1/trust"), "fleet", "fingerprint");
  if (kind == "USER") add_names(out, context.fetch("/v1/users"), "name", "role");
  if (kind == "HOST" || kind == "PORT" || kind == "DESTINATION") {
    const json hosts = context.fetch("/v1/hosts");
    Candidates names;
    add_names(names, hosts, "name", "state");
    if (kind != "DESTINATION") add_names(names, trusted_hosts(context), "name", "state");
    for (const auto& [name, state] : names) out[kind == "PORT" ? name + "/" : name] = state;
    if (kind == "DESTINATION") {
      for (const json& host : hosts) out.try_emplace(host.value("site", ""), "site");
    }
  }
  if (kind == "TENANT") {
    for (const char* path : {"/v1/vms", "/v1/ports"}) {
      add_names(out, context.fetch(path), "tenant", "");
    }
  }
  return out;
}

// What an option or an argument is called in the help says what it takes.
Candidates values_of(const CLI::Option& option, const Context& context, bool& is_file) {
  const std::string type = option.get_type_name();
  const std::size_t from = type.find('{');
  const std::size_t to = type.find('}');
  Candidates out;
  if (from != std::string::npos && to != std::string::npos) {
    std::string list = type.substr(from + 1, to - from - 1) + ",";
    for (std::size_t comma; (comma = list.find(',')) != std::string::npos;) {
      out[list.substr(0, comma)] = "";
      list.erase(0, comma + 1);
    }
    return out;
  }
  std::string kind = type.substr(0, type.find(':'));
  if (kind == "TEXT") kind = option.get_name();  // an argument's own name says it
  is_file = kind == "FILE";
  return is_file ? out : names_of(kind, context);
}

Candidates options_of(const Place& place) {
  Candidates out;
  for (const CLI::App* app : place.path) {
    for (const CLI::Option* option : app->get_options()) {
      if (!option->nonpositional() || option->get_group().empty()) continue;
      for (const auto& name : option->get_lnames()) {
        out["--" + name] = first_line(option->get_description());
      }
    }
  }
  return out;
}

Candidates words_of(const Place& place, const Context& context, bool& is_file) {
  Candidates out;
  const auto subcommands = place.app->get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* sub : subcommands) {
    out[sub->get_name()] = first_line(sub->get_description());
  }
  std::size_t skip = place.positionals;
  for (const CLI::Option* option : place.app->get_options()) {
    if (!option->get_positional() || skip-- > 0) continue;
    return values_of(*option, context, is_file);
  }
  return out;
}

Candidates candidates(const Place& place, std::string& last, std::string& prefix,
                      const Context& context, bool& is_file) {
  if (place.pending != nullptr) return values_of(*place.pending, context, is_file);
  const std::size_t equals = last.find('=');
  if (last.starts_with("--") && equals != std::string::npos) {
    prefix = last.substr(0, equals + 1);
    const CLI::Option* option = find_option(place, last.substr(0, equals));
    last.erase(0, equals + 1);
    return option == nullptr ? Candidates{} : values_of(*option, context, is_file);
  }
  if (last.starts_with('-')) return options_of(place);
  return words_of(place, context, is_file);
}

}  // namespace

void complete(const CLI::App& app, Context& context, const std::vector<std::string>& words) {
  if (words.empty()) return;
  Place place{.app = &app, .path = {&app}, .values = {}};
  for (std::size_t i = 0; i + 1 < words.size(); ++i) step(place, words[i]);
  const auto from_environment = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  context.host = from_environment("GODWIT_HOST");
  context.at = from_environment("GODWIT_AT");
  context.identity = from_environment("GODWIT_IDENTITY");
  for (const auto& [name, to] : {std::pair("host", &context.host),
                                 {"at", &context.at},
                                 {"socket", &context.socket},
                                 {"identity", &context.identity}}) {
    if (const auto given = place.values.find(name); given != place.values.end()) {
      *to = given->second;
    }
  }
  std::string last = words.back(), prefix;
  bool is_file = false;
  Candidates found;
  ::alarm(kPatienceS);  // ends this process: nothing to complete
  try {
    found = candidates(place, last, prefix, context, is_file);
  } catch (const std::exception&) {
    // No agent, no names.
  }
  ::alarm(0);
  if (is_file) context.io.out << ":file\n";
  for (const auto& [candidate, about] : found) {
    if (candidate.starts_with(last)) context.io.out << prefix << candidate << '\t' << about << '\n';
  }
}

}  // namespace godwit::cli

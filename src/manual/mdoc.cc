#include "manual/mdoc.hh"

#include <sstream>
#include <vector>

#include "base/result.hh"

namespace godwit::manual {
namespace {

// Text as roff takes it literally: no escape, no request at the start of the line.
std::string text_line(std::string_view text) {
  std::string out = text.starts_with('.') || text.starts_with('\'') ? "\\&" : "";
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else {
      out += c == '\n' ? ' ' : c;
    }
  }
  return out + "\n";
}

std::string sentence(std::string text) {
  if (!text.empty() && !text.ends_with('.') && !text.ends_with(')')) text += '.';
  return text_line(text);
}

// An argument of a macro: one word, never itself a macro.
std::string word(std::string_view text) {
  std::string out = "\\&";
  for (const char c : text) out += c == '-' ? std::string("\\-") : std::string(1, c);
  return out;
}

// "TEXT:{abort,pause}" -> "abort | pause", "TIME" -> "TIME", a flag -> "".
std::string value_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::size_t from = type.find('{');
  const std::size_t to = type.find('}');
  if (from == std::string::npos || to == std::string::npos) {
    const std::string plain = type.substr(0, type.find(':'));
    return plain.empty() ? "" : " Ar " + word(plain);
  }
  std::string out = " Cm ";
  for (const char c : type.substr(from + 1, to - from - 1)) {
    out += c == ',' ? std::string(" | ") : std::string(1, c);
  }
  return out;
}

// "Fl H , Fl -host Ar HOST"
std::string flags_of(const CLI::Option& option) {
  std::string out;
  for (const auto& name : option.get_snames()) out += (out.empty() ? "Fl " : " , Fl ") + word(name);
  for (const auto& name : option.get_lnames()) {
    out += (out.empty() ? "Fl " : " , Fl ") + ("\\-" + word(name));
  }
  return out + value_of(option);
}

bool is_shown(const CLI::Option& option) {
  // --help is on every page once, in its prose.
  return !option.get_group().empty() && !option.check_lname("help");
}

std::string option_list(const CLI::App& app) {
  std::string items;
  for (const CLI::Option* option : app.get_options()) {
    if (!is_shown(*option) || option->get_positional()) continue;
    items += ".It " + flags_of(*option) + "\n";
    items += sentence(option->get_description());
    if (!option->get_envname().empty()) {
      items += "Also from the environment:\n.Ev " + option->get_envname() + " .\n";
    }
  }
  return items.empty() ? "" : ".Bl -tag -width Ds\n" + items + ".El\n";
}

// "Cm vm run Ar NAME Op Ar ..."
std::string usage(const CLI::App& app, const std::string& path) {
  std::string out = "Cm " + path;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = "Ar " + word(option->get_name());
    out += option->get_required() ? " " + name : " Op " + name;
  }
  return out;
}

void add_commands(const CLI::App& app, const std::string& path, std::string& out) {
  const auto verbs = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* verb : verbs) add_commands(*verb, path + " " + verb->get_name(), out);
  if (!verbs.empty()) return;
  out += ".It " + usage(app, path) + "\n" + sentence(app.get_description());
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional() || option->get_description().empty()) continue;
    out += ".br\n.Ar " + word(option->get_name()) + " :\n" + sentence(option->get_description());
  }
  out += option_list(app);
}

std::string commands(const CLI::App& app) {
  std::string out;
  for (const CLI::App* noun : app.get_subcommands([](const CLI::App*) { return true; })) {
    out += ".Ss " + noun->get_name() + "\n";
    if (!noun->get_subcommands([](const CLI::App*) { return true; }).empty()) {
      out += sentence(noun->get_description());
    }
    out += ".Bl -tag -width Ds\n";
    add_commands(*noun, noun->get_name(), out);
    out += ".El\n";
  }
  return out;
}

}  // namespace

std::string page(const CLI::App& app, std::string_view prose) {
  std::string out;
  std::istringstream lines{std::string(prose)};
  for (std::string line; std::getline(lines, line);) {
    if (line == ".\\\" @commands@") {
      out += commands(app);
    } else if (line == ".\\\" @options@") {
      out += option_list(app);
    } else if (line == ".\\\" @made@") {
      out += ".\\\" Made by ./dev man from the .in file beside and from --help: do not edit.\n";
    } else {
      out += line + "\n";
    }
  }
  return out;
}

}  // namespace godwit::manual

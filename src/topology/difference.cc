#include "topology/difference.hh"

#include <algorithm>

namespace godwit::topology {
namespace {

using nlohmann::json;

const json kNothing = json::object();

// A name of digits may be written without quotes.
json text_of(const json& value) { return value.is_number() ? json(value.dump()) : value; }

bool same_scalar(const json& wanted, const json& is) {
  if (wanted.is_number() && is.is_number()) return wanted.get<double>() == is.get<double>();
  if (wanted.is_number() != is.is_number()) {
    return wanted.is_structured() || is.is_structured() ? false : text_of(wanted) == text_of(is);
  }
  if (!wanted.is_string() || !is.is_string()) return wanted == is;
  // MAC addresses and hexadecimal digits come back in lower case.
  return std::ranges::equal(
      wanted.get_ref<const std::string&>(), is.get_ref<const std::string&>(),
      [](unsigned char a, unsigned char b) { return std::tolower(a) == std::tolower(b); });
}

const json* named(const json& list, const json& name) {
  for (const json& each : list) {
    if (each.is_object() && each.value("name", json()) == name) return &each;
  }
  return nullptr;
}

bool is_nothing(const json& value) {
  return value.is_null() || value == false || value == 0 || value == "" ||
         (value.is_structured() && value.empty());
}

const json& ports_of(const json& settings) {
  static const json kNone = json::array();
  const auto found = settings.find("ports");
  return found != settings.end() && found->is_array() ? *found : kNone;
}

}  // namespace

bool covers(const json& wanted, const json& is) {
  if (is_nothing(wanted) && is_nothing(is)) return true;
  if (wanted.is_object() && is.is_object()) {
    return std::ranges::all_of(wanted.items(), [&](const auto& member) {
      if (!is.contains(member.key())) return is_nothing(member.value());
      return covers(member.value(), is[member.key()]);
    });
  }
  // A list of one may be written without its brackets.
  if (is.is_array() && !wanted.is_array()) return covers(json::array({wanted}), is);
  if (wanted.is_array() && is.is_array()) {
    return std::ranges::equal(wanted, is,
                              [](const json& a, const json& b) { return covers(a, b); });
  }
  return same_scalar(wanted, is);
}

bool same(const json& a, const json& b) { return covers(a, b) && covers(b, a); }

std::set<std::string> differing(const json& said, const json& whole, const json& is) {
  std::set<std::string> members;
  for (const auto& [key, value] : said.items()) {
    if (!covers(json::object({{key, value}}), is)) members.insert(key);
  }
  for (const auto& [key, value] : whole.items()) {
    if (is.contains(key) && !same(value, is[key])) members.insert(key);
  }
  return members;
}

namespace {

class Comparison final {
 public:
  Comparison(const WantedThing& wanted, const json& is) : wanted_(wanted), is_(is) {}

  std::optional<Difference> compare(bool is_made, const std::set<std::string>& made_ports) {
    json said = wanted_.settings, whole = is_made ? wanted_.whole : kNothing;
    for (const char* other : {"type", "ports"}) {
      said.erase(other);
      whole.erase(other);
    }
    found_.settings = told(said, whole, is_, "");
    const bool is_known = wanted_.whole.contains("ports");
    for (const json& port : ports_of(is_known ? wanted_.whole : wanted_.settings)) {
      compare_port(port, made_ports.contains(text_at(port, "name")));
    }
    if (found_.members.empty()) return std::nullopt;
    return std::move(found_);
  }

 private:
  void compare_port(const json& whole, bool is_made) {
    const json& name = whole["name"];
    const json* said = named(ports_of(wanted_.settings), name);
    const json* is = named(ports_of(is_), name);
    if (is == nullptr && said != nullptr) {
      found_.members.push_back("port " + name.get<std::string>());
      found_.settings["ports"].push_back(*said);
    }
    if (is == nullptr) return;
    json settings = told(said != nullptr ? *said : kNothing, is_made ? whole : kNothing, *is,
                         " of " + name.get<std::string>());
    if (settings.empty()) return;
    settings["name"] = name;
    found_.settings["ports"].push_back(std::move(settings));
  }

  json told(const json& said, const json& whole, const json& is, const std::string& of) {
    json settings = json::object();
    for (const std::string& key : differing(said, whole, is)) {
      settings[key] = said.contains(key) ? said[key] : whole[key];
      found_.members.push_back(key + of);
    }
    return settings;
  }

  const WantedThing& wanted_;
  const json& is_;
  Difference found_{};
};

}  // namespace

std::optional<Difference> difference(const WantedThing& wanted, const json& is, bool is_made,
                                     const std::set<std::string>& made_ports) {
  return Comparison(wanted, is).compare(is_made, made_ports);
}

}  // namespace godwit::topology

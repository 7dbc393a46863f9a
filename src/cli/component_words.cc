#include "cli/component_words.hh"

#include <fmt/ranges.h>

#include <CLI/Error.hpp>
#include <algorithm>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/units.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;

// As people write them, and as the API has them.
const std::map<std::string, std::string, std::less<>> kKeys = {{"flood", "flooded_per_s"},
                                                               {"lease", "lease_s"}};

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(at, begin);
    parts.push_back(text.substr(begin, end - begin));
  }
  return parts;
}

json scalar_of(const std::string& text) {
  if (text == "yes") return true;
  if (text == "no") return false;
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  if (parsed.ec == std::errc{} && parsed.ptr == end) return number;
  return text;
}

std::string key_of(std::string word) {
  std::ranges::replace(word, '-', '_');
  const auto found = kKeys.find(word);
  return found != kKeys.end() ? found->second : word;
}

std::string word_of(const std::string& key) {
  const auto found = std::ranges::find(kKeys, key, &decltype(kKeys)::value_type::second);
  std::string word = found != kKeys.end() ? found->first : key;
  std::ranges::replace(word, '_', '-');
  return word;
}

json field_of(const std::string& key, const std::string& value) {
  if (!key.ends_with("_s")) return value_of(value);
  const auto duration = parse_duration(value);
  return duration ? json(*duration / seconds(1)) : value_of(value);
}

std::string text_of_value(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object()) return as_words(value);
  if (!value.is_array()) return value.dump();
  std::vector<std::string> all;
  for (const json& each : value) all.push_back(text_of_value(each));
  const bool are_objects = !value.empty() && value.front().is_object();
  return fmt::format("{}", fmt::join(all, are_objects ? "; " : "+"));
}

}  // namespace

json value_of(const std::string& text) {
  if (text.find('+') == std::string::npos) return scalar_of(text);
  json list = json::array();
  for (const std::string& each : split(text, '+')) list.push_back(scalar_of(each));
  return list;
}

json object_of(const std::string& text, std::string_view first) {
  const auto words = split(text, ',');
  json object = {{first, words[0]}};
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::size_t equals = words[i].find('=');
    const std::string key = key_of(words[i].substr(0, equals));
    if (equals != std::string::npos) {
      object[key] = field_of(key, words[i].substr(equals + 1));
    } else {
      object[key] = key == "trunk" ? json::array() : json(true);  // a trunk of all
    }
  }
  return object;
}

json pinned_mac_of(const std::string& text) {
  const std::size_t at = text.find('@');
  if (at == std::string::npos) {
    throw CLI::ValidationError("--mac", fmt::format("'{}' is not MAC@PORT[,VLAN]", text));
  }
  const auto where = split(text.substr(at + 1), ',');
  json mac = {{"mac", text.substr(0, at)}, {"port", where[0]}};
  if (where.size() > 1) mac["vlan"] = scalar_of(where[1]);
  return mac;
}

std::string as_words(const json& object) {
  std::vector<std::string> words;
  for (const auto& [key, value] : object.items()) {
    const bool is_empty = value.is_null() || value == "" || value == false || value == 0 ||
                          (value.is_array() && value.empty());
    if (key == "trunk" && value.is_array() && value.empty()) {
      words.emplace_back("trunk");
    } else if (value == true) {
      words.push_back(word_of(key));
    } else if (!is_empty) {
      words.push_back(fmt::format("{}={}", word_of(key), text_of_value(value)));
    }
  }
  return words.empty() ? "-" : fmt::format("{}", fmt::join(words, ","));
}

}  // namespace godwit::cli

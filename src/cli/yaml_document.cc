#include "cli/yaml_document.hh"

#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <charconv>

namespace godwit::cli {
namespace {

using nlohmann::json;

constexpr std::size_t kMostTold = 20;        // mistakes at a time
constexpr std::size_t kMostNodes = 300'000;  // aliases may stand for aliases

template <class Number>
std::optional<Number> number(const std::string& text) {
  Number value{};
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_all = parsed.ec == std::errc{} && parsed.ptr == text.data() + text.size();
  return is_all ? std::optional(value) : std::nullopt;
}

json scalar(const YAML::Node& node) {
  const std::string& text = node.Scalar();
  if (node.Tag() != "?") return text;  // quoted, or a text by its tag
  if (text.empty() || text == "~" || text == "null") return nullptr;
  if (text == "true" || text == "false") return text == "true";
  const std::size_t sign = text.front() == '-' ? 1 : 0;
  const bool is_padded = text.size() > sign + 1 && text[sign] == '0' && text[sign + 1] != '.';
  if (is_padded || text.find_first_not_of("0123456789.eE+-") != std::string::npos) return text;
  if (const auto whole = number<std::int64_t>(text)) return *whole;
  if (const auto real = number<double>(text)) return *real;
  return text;
}

class Reader final {
 public:
  explicit Reader(YamlDocument& document) : document_(document) {}

  json read(const YAML::Node& node, const std::string& pointer) {
    if (++nodes_ > kMostNodes) fail_at(node, "the file says too much");
    document_.lines[pointer] = node.Mark().line + 1;
    if (node.IsSequence()) {
      json list = json::array();
      for (const auto& each : node) {
        list.push_back(read(each, pointer + "/" + std::to_string(list.size())));
      }
      return list;
    }
    return node.IsMap() ? mapping(node, pointer) : node.IsScalar() ? scalar(node) : json();
  }

 private:
  json mapping(const YAML::Node& node, const std::string& pointer) {
    json object = json::object();
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) fail_at(entry.first, "a key is a text");
      const std::string& key = entry.first.Scalar();
      if (object.contains(key)) fail_at(entry.first, fmt::format("'{}' is here twice", key));
      const std::string below = pointer_below(pointer, key);
      object[key] = read(entry.second, below);
      document_.lines[below] = entry.first.Mark().line + 1;
    }
    return object;
  }
  [[noreturn]] static void fail_at(const YAML::Node& node, const std::string& text) {
    throw YAML::ParserException(node.Mark(), text);
  }

  YamlDocument& document_;
  std::size_t nodes_ = 0;
};

}  // namespace

int YamlDocument::line(const std::string& pointer) const {
  std::string at = pointer;
  while (!lines.contains(at) && !at.empty()) at.erase(at.rfind('/'));
  const auto found = lines.find(at);
  return found == lines.end() ? 1 : found->second;
}

std::string YamlDocument::place(const std::string& pointer) const {
  return fmt::format("{}:{}", file, line(pointer));
}

Result<YamlDocument> read_yaml(const std::string& file) {
  YamlDocument document{.file = file, .value = {}, .lines = {}};
  try {
    document.value = Reader(document).read(YAML::LoadFile(file), "");
  } catch (const YAML::BadFile&) {
    return fail("cannot read {}", file);
  } catch (const YAML::Exception& error) {
    return fail("{}:{}: {}", file, error.mark.line + 1, error.msg);
  }
  return document;
}

Failure failure_of(ExitStatus status, const YamlDocument& document,
                   const std::vector<Problem>& problems) {
  std::multimap<int, std::string> by_line;
  for (const auto& [where, what] : problems) {
    by_line.emplace(document.line(where), fmt::format("{}: {}", document.place(where), what));
  }
  std::vector<std::string> told;
  for (const auto& [line, text] : by_line) {
    if (told.size() == kMostTold) break;
    told.push_back(text);
  }
  std::string text = fmt::format("{}", fmt::join(told, "\n"));
  if (problems.size() > told.size()) {
    text += fmt::format("\nand {} more", problems.size() - told.size());
  }
  return {status, text};
}

}  // namespace godwit::cli

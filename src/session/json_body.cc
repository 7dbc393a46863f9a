#include "session/json_body.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace godwit::session {
namespace {

constexpr std::size_t kMaxPrintable = 1024;

// Brackets outside strings; enough to bound the parser's output, which does the real checking.
bool is_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      in_string = c != '"';
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kMaxJsonDepth) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Result<nlohmann::json> parse_json_body(BytesView body) {
  const std::string_view text = as_text(body);
  if (is_too_deep(text)) return fail("message nested deeper than {}", kMaxJsonDepth);
  auto value = nlohmann::json::parse(text, nullptr, false);
  if (value.is_discarded()) return fail("message is not JSON");
  return value;
}

std::string json_text(const nlohmann::json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string printable(std::string_view text) {
  std::string out(text.substr(0, kMaxPrintable));
  std::ranges::replace_if(out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return out;
}

std::string text_member(const nlohmann::json& object, const char* name) {
  if (!object.is_object()) return {};
  const auto at = object.find(name);
  return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

}  // namespace godwit::session

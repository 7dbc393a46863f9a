#include "etcd/messages.hh"

#include <algorithm>
#include <charconv>

#include "base/base64.hh"

namespace godwit::etcd {

using nlohmann::json;

namespace {

constexpr std::size_t kMostErrorText = 300;
constexpr std::size_t kMostToken = 4096;  // a JWT may be some hundred bytes

json null_or(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() ? json() : *found;
}

std::string text_at(const json& object, const char* key) {
  const json value = null_or(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

// The first key that does not begin with `prefix` any more.
std::string after(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  if (!prefix.empty()) prefix.back() = static_cast<char>(prefix.back() + 1);
  return prefix;
}

Result<std::int64_t> revision(const std::string& text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number <= 0) {
    return fail("etcd names a key without its revision");
  }
  return number;
}

Result<> add_keys(const json& answer, Found& found) {
  const json pairs = null_or(answer, "kvs");
  if (pairs.is_null()) return {};
  if (!pairs.is_array()) return fail("etcd's answer has no list of keys");
  for (const json& pair : pairs) {
    const auto key = from_base64(text_at(pair, "key"));
    const auto value = from_base64(text_at(pair, "value"));
    if (!key || !value) return fail("etcd's answer has no base64 where it should");
    const auto changed = revision(text_at(pair, "mod_revision"));
    if (!changed) return std::unexpected(changed.error());
    found[*key] = {.text = *value, .revision = *changed};
  }
  return {};
}

// Each true answer has one; what comes from another server has not.
Result<> is_of_etcd(const json& answer) {
  if (null_or(answer, "header").is_object()) return {};
  return fail("this is no answer of etcd");
}

}  // namespace

json read_request(const std::vector<std::string>& keys) {
  json ranges = json::array();
  for (const auto& key : keys) ranges.push_back({{"requestRange", {{"key", to_base64(key)}}}});
  return {{"success", ranges}};
}

json list_request(const std::string& prefix, std::size_t limit) {
  return {{"key", to_base64(prefix)},
          {"range_end", to_base64(after(prefix))},
          {"limit", std::to_string(limit)}};
}

json write_request(const Write& write) {
  json compare = json::array(), success = json::array();
  for (const auto& [key, revision] : write.unchanged) {
    compare.push_back({{"key", to_base64(key)},
                       {"target", "MOD"},
                       {"result", "EQUAL"},
                       {"mod_revision", std::to_string(revision)}});
  }
  for (const auto& [key, value] : write.changes) {
    if (value) {
      success.push_back({{"requestPut", {{"key", to_base64(key)}, {"value", to_base64(*value)}}}});
    } else {
      success.push_back({{"requestDeleteRange", {{"key", to_base64(key)}}}});
    }
  }
  return {{"compare", compare}, {"success", success}};
}

json authenticate_request(const std::string& user, const std::string& password) {
  return {{"name", user}, {"password", password}};
}

Result<Found> list_answer(const json& answer) {
  Found found;
  if (const auto is = is_of_etcd(answer); !is) return std::unexpected(is.error());
  if (const auto added = add_keys(answer, found); !added) return std::unexpected(added.error());
  return found;
}

Result<Found> read_answer(const json& answer) {
  Found found;
  if (const auto is = is_of_etcd(answer); !is) return std::unexpected(is.error());
  const json ranges = null_or(answer, "responses");
  if (!ranges.is_array()) return fail("etcd's answer has no keys that were asked for");
  for (const json& range : ranges) {
    const auto added = add_keys(null_or(range, "response_range"), found);
    if (!added) return std::unexpected(added.error());
  }
  return found;
}

Result<bool> write_answer(const json& answer) {
  if (const auto is = is_of_etcd(answer); !is) return std::unexpected(is.error());
  return null_or(answer, "succeeded") == true;
}

Result<std::string> authenticate_answer(const json& answer) {
  std::string token = text_at(answer, "token");
  // It becomes a header's value.
  const auto is_plain = [](char c) { return c > ' ' && c <= '~'; };
  if (token.empty() || token.size() > kMostToken || !std::ranges::all_of(token, is_plain)) {
    return fail("etcd gave no token");
  }
  return token;
}

std::string error_text(const json& answer) {
  std::string text = text_at(answer, "error");
  if (text.empty()) text = text_at(answer, "message");
  text.resize(std::min(text.size(), kMostErrorText));
  std::ranges::replace_if(text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace godwit::etcd

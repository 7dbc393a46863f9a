#include "etcd/messages.hh"

#include <algorithm>
#include <charconv>

namespace godwit::etcd {

using nlohmann::json;

namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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
    if (!key) return std::unexpected(key.error());
    if (!value) return std::unexpected(value.error());
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

std::string to_base64(std::string_view text) {
  std::string coded;
  coded.reserve((text.size() + 2) / 3 * 4);
  for (std::size_t at = 0; at < text.size(); at += 3) {
    const auto byte = [&](std::size_t i) -> std::uint32_t {
      return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U;
    };
    const std::uint32_t bits = byte(0) << 16U | byte(1) << 8U | byte(2);
    const std::size_t count = std::min<std::size_t>(text.size() - at, 3) + 1;
    for (std::size_t i = 0; i < 4; ++i) {
      coded += i < count ? kDigits[bits >> (18 - 6 * i) & 63U] : '=';
    }
  }
  return coded;
}

Result<std::string> from_base64(std::string_view text) {
  if (text.size() % 4 != 0) return fail("etcd's answer has no base64 where it should");
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  std::string plain;
  plain.reserve(text.size() / 4 * 3 + 2);
  std::uint32_t bits = 0;
  unsigned count = 0;
  for (const char c : text) {
    const auto digit = kDigits.find(c);
    if (digit == std::string_view::npos) return fail("etcd's answer has no base64 where it should");
    bits = bits << 6U | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    plain += static_cast<char>(bits >> count & 0xffU);
  }
  return plain;
}

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

#include "fabric/fields.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "os/mac.hh"

namespace godwit::fabric {
namespace {

using nlohmann::json;

const json kNothing;

// Numbers made here may be of the signed kind.
std::optional<std::uint64_t> count_of(const json& value) {
  if (value.is_number_unsigned()) return value.get<std::uint64_t>();
  if (value.is_number_integer() && value.get<std::int64_t>() >= 0) {
    return value.get<std::uint64_t>();
  }
  return std::nullopt;
}

}  // namespace

Result<> parse(const std::string& text, Ip& into) {
  const auto parsed = parse_ip(text);
  if (!parsed) return std::unexpected(parsed.error());
  into = *parsed;
  return {};
}

Result<> parse(const std::string& text, IpPrefix& into) {
  const auto parsed = parse_ip_prefix(text);
  if (!parsed) return std::unexpected(parsed.error());
  into = *parsed;
  return {};
}

Result<net::Mac> parse_mac(const std::string& text) {
  const auto parsed = os::MacAddress::parse(text);
  if (!parsed) return godwit::fail("'{}' is no MAC address, like 52:54:00:12:34:56", text);
  const net::Mac mac = net::mac_at(std::as_bytes(std::span(parsed->octets)).data());
  if (net::is_group(mac)) return godwit::fail("{} is a group, not a station", text);
  return mac;
}

Fields::Fields(const json& object) : object_(object) {
  if (!object.is_object()) fail("this is no object with fields");
}

const json& Fields::at(const char* key, const json& nothing) {
  if (json& asked = asked_[key]; asked.is_null()) asked = nothing;
  if (!object_.is_object()) return kNothing;
  const auto found = object_.find(key);
  return found == object_.end() ? kNothing : *found;
}

void Fields::fail(std::string text) {
  if (!error_) error_ = std::move(text);
}

void Fields::take(const char* key, const Result<>& result) {
  if (!result) fail(fmt::format("{}: {}", key, result.error().text));
}

bool Fields::has(const char* key) { return !at(key).is_null(); }

bool Fields::is_text(const char* key, std::string& into) {
  const json& value = at(key, "");
  if (value.is_null()) return false;
  if (!value.is_string()) return fail(fmt::format("'{}' is a text", key)), false;
  into = value.get<std::string>();
  return true;
}

Fields& Fields::flag(const char* key, bool& into) {
  const json& value = at(key, false);
  if (value.is_boolean()) {
    into = value.get<bool>();
  } else if (!value.is_null()) {
    fail(fmt::format("'{}' is true or false", key));
  }
  return *this;
}

Fields& Fields::text(const char* key, std::string& into) {
  is_text(key, into);
  return *this;
}

Fields& Fields::texts(const char* key, std::vector<std::string>& into) {
  if (at(key, json::array()).is_null()) return *this;
  into.clear();
  for (const json& each : list_at(key)) {
    if (!each.is_string()) return fail(fmt::format("'{}' is a list of texts", key)), *this;
    into.push_back(each.get<std::string>());
  }
  return *this;
}

Fields& Fields::word(const char* key, std::string& into) {
  if (std::vector<std::string> one; !at(key, "").is_null()) {
    words(key, one);
    if (one.size() != 1) fail(fmt::format("'{}' is one word", key));
    if (one.size() == 1) into = one[0];
  }
  return *this;
}

Fields& Fields::words(const char* key, std::vector<std::string>& into) {
  if (at(key, json::array()).is_null()) return *this;
  into.clear();
  for (const json& each : list_at(key)) {
    const auto count = count_of(each);
    if (!each.is_string() && !count)
      return fail(fmt::format("'{}' is a list of words", key)), *this;
    into.push_back(count ? std::to_string(*count) : each.get<std::string>());
  }
  return *this;
}

std::optional<std::uint64_t> Fields::number_at(const char* key, std::uint64_t least,
                                               std::uint64_t most) {
  const json& value = at(key, 0);
  if (value.is_null()) return std::nullopt;
  const auto count = count_of(value);
  if (count && *count >= least && *count <= most) return count;
  fail(least == 0 ? fmt::format("'{}' is a number, at most {}", key, most)
                  : fmt::format("'{}' is a number, {} to {}", key, least, most));
  return std::nullopt;
}

// One thing is a list of it.
json Fields::list_at(const char* key) {
  const json& value = at(key);
  return value.is_array() ? value : json::array({value});
}

std::vector<std::uint64_t> Fields::numbers_at(const char* key, std::uint64_t most) {
  std::vector<std::uint64_t> all;
  for (const json& each : list_at(key)) {
    const auto count = count_of(each);
    if (!count || *count > most) {
      return fail(fmt::format("'{}' is a list of numbers, at most {}", key, most)), all;
    }
    all.push_back(*count);
  }
  return all;
}

Fields& Fields::mac(const char* key, net::Mac& into) {
  std::string text;
  if (!is_text(key, text)) return *this;
  const auto parsed = parse_mac(text);
  if (parsed) into = *parsed;
  if (!parsed) fail(parsed.error().text);
  return *this;
}

Fields& Fields::mac(const char* key, std::optional<net::Mac>& into) {
  std::string text;
  if (!is_text(key, text)) return *this;
  into.reset();
  return text.empty() ? *this : mac(key, into.emplace());
}

Fields& Fields::each(const char* key, const std::function<void(Fields&)>& read) {
  const json& value = at(key, json::array());
  if (!value.is_null() && !value.is_array()) fail(fmt::format("'{}' is a list", key));
  for (const json& object : value.is_array() ? value : json::array()) {
    Fields fields(object);
    read(fields);
    if (const auto done = fields.done(); !done) {
      const std::string which =
          object.is_object() && object.contains("name") && object["name"].is_string()
              ? object["name"].get<std::string>()
              : object.dump(-1, ' ', false, json::error_handler_t::replace);
      fail(fmt::format("{}: {}: {}", key, which, done.error().text));
    }
  }
  return *this;
}

Fields& Fields::ignore(std::initializer_list<const char*> keys) {
  for (const char* key : keys) at(key);
  return *this;
}

Fields& Fields::ignore_rest() {
  if (!object_.is_object()) return *this;
  for (const auto& [key, value] : object_.items()) at(key.c_str());
  return *this;
}

Result<> Fields::done() const {
  if (error_) return godwit::fail("{}", *error_);
  for (const auto& [key, value] : object_.items()) {
    if (asked_.contains(key)) continue;
    std::vector<std::string> known;
    for (const auto& [asked, nothing] : asked_.items()) known.push_back(asked);
    return godwit::fail("there is no '{}' here, but {}", key, fmt::join(known, ", "));
  }
  return {};
}

}  // namespace godwit::fabric

#pragma once
// Reads the fields of a JSON object that somebody else made: a request, a record, a part of a
// topology. What is missing leaves things as they are, a list of one may be written without its
// brackets; the first field that is wrong is the error,
// and so is one that nobody asked for: a word that was misspelt must not pass for nothing said.
// What was asked for is known afterwards, so that a type's fields are written down once.
#include <concepts>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/id.hh"
#include "base/ip.hh"
#include "base/result.hh"
#include "net/mac_table.hh"

namespace godwit::fabric {

// What fields hold. Each says what is wrong with a text that is none.
Result<> parse(const std::string& text, Ip& into);
Result<> parse(const std::string& text, IpPrefix& into);
Result<net::Mac> parse_mac(const std::string& text);  // a station's: "52:54:00:12:34:56"

class Fields final {
 public:
  explicit Fields(const nlohmann::json& object);

  bool has(const char* key);
  // All that was asked for, each with the nothing of its kind: false, 0, "" or [].
  const nlohmann::json& asked() const { return asked_; }
  Fields& flag(const char* key, bool& into);
  Fields& text(const char* key, std::string& into);
  Fields& texts(const char* key, std::vector<std::string>& into);  // all of them anew
  // Texts that may be written as numbers.
  Fields& word(const char* key, std::string& into);
  Fields& words(const char* key, std::vector<std::string>& into);
  template <std::unsigned_integral Number>
  Fields& number(const char* key, Number& into,
                 std::type_identity_t<Number> most = std::numeric_limits<Number>::max(),
                 std::type_identity_t<Number> least = 0) {
    if (const auto value = number_at(key, least, most)) into = static_cast<Number>(*value);
    return *this;
  }
  // "" takes one away.
  template <std::unsigned_integral Number>
  Fields& number(const char* key, std::optional<Number>& into,
                 std::type_identity_t<Number> most = std::numeric_limits<Number>::max()) {
    if (at(key, "") == "") {
      into.reset();
    } else if (const auto value = number_at(key, 0, most)) {
      into = static_cast<Number>(*value);
    }
    return *this;
  }
  template <std::unsigned_integral Number>
  Fields& numbers(const char* key, std::vector<Number>& into, std::type_identity_t<Number> most) {
    if (at(key, nlohmann::json::array()).is_null()) return *this;
    into.clear();
    for (const auto value : numbers_at(key, most)) into.push_back(static_cast<Number>(value));
    return *this;
  }
  // An address or prefix; "" takes one away where there may be none.
  template <class Address>
  Fields& address(const char* key, Address& into) {
    if (std::string text; is_text(key, text)) take(key, parse(text, into));
    return *this;
  }
  template <class Address>
  Fields& address(const char* key, std::optional<Address>& into) {
    std::string text;
    if (!is_text(key, text)) return *this;
    into.reset();
    if (!text.empty()) take(key, parse(text, into.emplace()));
    return *this;
  }
  template <class Address>
  Fields& addresses(const char* key, std::vector<Address>& into) {
    std::vector<std::string> all;
    texts(key, all);
    if (!has(key)) return *this;
    into.clear();
    for (const std::string& text : all) take(key, parse(text, into.emplace_back()));
    return *this;
  }
  Fields& mac(const char* key, net::Mac& into);
  Fields& mac(const char* key, std::optional<net::Mac>& into);
  template <class AnId>
  Fields& id(const char* key, AnId& into) {
    std::string text;
    if (!is_text(key, text)) return *this;
    if (const auto parsed = AnId::parse(text)) {
      into = *parsed;
    } else {
      fail(std::string(key) + ": '" + text + "' is no id of 32 hex digits");
    }
    return *this;
  }
  // A list of objects, one after the other.
  Fields& each(const char* key, const std::function<void(Fields&)>& read);
  // Read elsewhere.
  Fields& ignore(std::initializer_list<const char*> keys);
  Fields& ignore_rest();

  void fail(std::string text);
  Result<> done() const;

 private:
  const nlohmann::json& at(const char* key, const nlohmann::json& nothing = nullptr);
  bool is_text(const char* key, std::string& into);
  void take(const char* key, const Result<>& result);
  std::optional<std::uint64_t> number_at(const char* key, std::uint64_t least, std::uint64_t most);
  nlohmann::json list_at(const char* key);
  std::vector<std::uint64_t> numbers_at(const char* key, std::uint64_t most);

  const nlohmann::json& object_;
  nlohmann::json asked_ = nlohmann::json::object();
  std::optional<std::string> error_{};
};

}  // namespace godwit::fabric

#pragma once
// Reading JSON that others made: a missing field or one of another type gives an empty value, never
// an exception.
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace godwit::qemu {

inline const nlohmann::json& member(const nlohmann::json& object, const char* key) {
  static const nlohmann::json null;
  if (!object.is_object()) return null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

inline std::string text_at(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

inline bool flag_at(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = member(object, key);
  return value.is_boolean() && value.get<bool>();
}

// At most 2^63 - 1, so that it also fits a count of a chrono duration.
inline std::uint64_t unsigned_at(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = member(object, key);
  if (!value.is_number_unsigned()) return 0;
  constexpr std::uint64_t kMost = std::numeric_limits<std::int64_t>::max();
  return std::min(value.get<std::uint64_t>(), kMost);
}

inline double number_at(const nlohmann::json& object, const char* key) {
  const nlohmann::json& value = member(object, key);
  return value.is_number() ? value.get<double>() : 0.0;
}

}  // namespace godwit::qemu

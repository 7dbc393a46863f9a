#pragma once
// What is wrong with a file that a person wrote, for whoever knows its lines.
#include <string>

namespace godwit {

struct Problem {
  std::string where;  // of the file's contents: a JSON pointer (RFC 6901)
  std::string text;
  bool operator==(const Problem&) const = default;
};

// The pointer of a member, or of an item by its number in decimal.
std::string pointer_below(const std::string& where, std::string key);

}  // namespace godwit

#include "base/problem.hh"

namespace godwit {

std::string pointer_below(const std::string& where, std::string key) {
  for (std::size_t at = 0; (at = key.find_first_of("~/", at)) != std::string::npos; at += 2) {
    key.replace(at, 1, key[at] == '~' ? "~0" : "~1");
  }
  return where + "/" + key;
}

}  // namespace godwit

#pragma once
// Who is at the other end of a connection, as whoever accepted it found out: the same for all of
// its requests.
#include <cstdint>
#include <string>

namespace godwit::http {

enum class Role : std::uint8_t {
  viewer,     // may read
  operator_,  // may read and change
  root,       // may do everything: came through the unix socket
};

// What a route asks of its caller.
enum class Access : std::uint8_t { read, change, root };

inline bool permits(Role role, Access access) {
  return static_cast<int>(role) >= static_cast<int>(access);
}
inline const char* to_text(Role role) {
  return role == Role::root ? "root" : role == Role::operator_ ? "operator" : "viewer";
}

struct Caller {
  Role role = Role::root;
  std::string name;          // "uid 0", "ann"
  std::string tenant;        // the only one it may see; empty: every tenant
  std::string from;          // "pid 4711", "192.0.2.7:50312"
  std::string serial;        // of its certificate; empty on the unix socket
  std::int64_t expires = 0;  // of that, seconds since 1970
  std::string via{};         // the host whose agent carries its requests here; empty: none does

  bool remote() const { return role != Role::root; }
  // Whether things of this tenant exist for it.
  bool sees(const std::string& of) const { return tenant.empty() || tenant == of; }
};

}  // namespace godwit::http

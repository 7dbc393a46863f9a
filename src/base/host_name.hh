#pragma once
// How hosts are called in this agent: NAME, a host of our fleet, or NAME@FLEET, one of another
// fleet that is trusted for some ports (docs/ARCHITECTURE.md). A certificate names NAME only, so
// nothing that another fleet certifies can be called like a host of ours.
#include <string>
#include <string_view>

namespace godwit {

inline std::string host_of_fleet(std::string_view name, std::string_view fleet) {
  return std::string(name) + '@' + std::string(fleet);
}
// Empty: our own.
std::string_view fleet_of(std::string_view host);
inline bool is_foreign(std::string_view host) { return !fleet_of(host).empty(); }
// What its own fleet calls it.
std::string_view name_in_fleet(std::string_view host);
bool is_valid_host(std::string_view text);

}  // namespace godwit

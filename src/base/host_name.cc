#include "base/host_name.hh"

#include "base/id.hh"

namespace godwit {

std::string_view fleet_of(std::string_view host) {
  const auto at = host.find('@');
  return at == std::string_view::npos ? std::string_view{} : host.substr(at + 1);
}

std::string_view name_in_fleet(std::string_view host) { return host.substr(0, host.find('@')); }

bool is_valid_host(std::string_view text) {
  const bool qualified = text.find('@') != std::string_view::npos;
  return is_valid_name(name_in_fleet(text)) && (!qualified || is_valid_name(fleet_of(text)));
}

}  // namespace godwit

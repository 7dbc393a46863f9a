#pragma once
// The address that this host has towards other networks: what it sends from by its routes, else the
// first address that is neither loopback nor link-local. IPv4 before IPv6. Empty when it has none.
#include <string>

namespace godwit::os {

struct OwnAddress {
  std::string address;
  std::string interface;
};
OwnAddress own_address();

}  // namespace godwit::os

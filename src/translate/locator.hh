#pragma once
// Which address a displaced guest is reached by.
#include <set>

#include "translate/fabric.hh"

namespace godwit::translate {

// One of those that the host's edge has for guests, in this host's part of them: so hosts of one
// edge need not agree. Of the family of `address`, and none of `used`.
Result<Ip> free_locator(const Fabric& fabric, DeviceIndex host, Ip address,
                        const std::set<Ip>& used);

}  // namespace godwit::translate

#pragma once
// An interface's segment is answered for an address that is elsewhere, so that its packets come
// here and are rewritten (os/address_rewriting.hh).
//
// The kernel proxies where its own route to the address leads out by another interface: so it has
// one by `lo`. The address must not be the host's own: what comes from it, the guest's answers,
// would be thrown away as martian.
#include <map>
#include <set>
#include <string>

#include "base/ip.hh"

namespace godwit::os {

// In the calling thread's network namespace, which forwards. Throw SetupError; harmless if
// repeated.
void answer_for(const std::string& interface, const Ip& address);
// And is announced: who knew the address elsewhere sends here from now on.
void claim(const std::string& interface, const Ip& address);
// Either; where the interface is gone, or none is given, what is left of it.
void unclaim(const std::string& interface, const Ip& address);

// As the kernel has it: an address is answered for where it has both. Routes are told from others'
// by the number of who made them, proxies are anybody's. Throws SetupError.
struct Claims {
  std::set<Ip> routes{};
  std::map<Ip, std::set<std::string>> proxies{};  // by what interfaces
  bool has(const std::string& interface, const Ip& address) const;
};
Claims read_claims();

}  // namespace godwit::os

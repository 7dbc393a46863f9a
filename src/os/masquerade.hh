#pragma once
// What comes from an interface's network leaves the host with the host's address (nftables), and
// the host forwards it. The rules are one table of their own, there for as long as this lives; one
// that a process left as it was killed is replaced.
#include <string>

#include "base/ip.hh"

namespace godwit::os {

class Masquerade final {
 public:
  // In the calling thread's network namespace. Throws SetupError; so where the host does not
  // forward IPv4 and does not let us change that. That it forwards then stays so.
  Masquerade(const std::string& interface, const IpPrefix& network);
  ~Masquerade();
  Masquerade(const Masquerade&) = delete;
  Masquerade& operator=(const Masquerade&) = delete;

 private:
  std::string table_;
};

}  // namespace godwit::os

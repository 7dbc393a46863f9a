#pragma once
// Which ports other fleets may have wires to. Implemented by Trust.
#include <string>
#include <string_view>
#include <vector>

namespace godwit::agent {

class TrustedPorts {
 public:
  virtual ~TrustedPorts() = default;
  // `tenant`: of the port that has this name now, which need not be the one that was meant.
  virtual bool is_trusted(std::string_view fleet, const std::string& port,
                          const std::string& tenant) const = 0;
  // Its hosts with whom there is a session, as HOST@FLEET.
  virtual std::vector<std::string> up(std::string_view fleet) const = 0;
  // SHA-256 of the fleet's CA in hex digits; empty: it is not trusted.
  virtual std::string fingerprint(std::string_view fleet) const = 0;
};

}  // namespace godwit::agent

#pragma once
// A device's rules as its kernel has them: rewrites in nftables, claims as proxied neighbours at
// the interface on the address's segment.
//
// What is claimed departs from before the claim until after it: in between it would go round in the
// device. Owned by DeviceDriver; in the calling thread's network namespace, always the same one.
#include <map>
#include <string>
#include <vector>

#include "os/address_claim.hh"
#include "os/address_rewriting.hh"
#include "translate/device_rules.hh"

namespace godwit::agent {

class DeviceKernel final {
 public:
  // Why this device can never have these: one is for an address of its own, or of no segment.
  static Result<> check(const translate::Rules& rules);

  // All of the device's. Claims that could not be made, by address, and why; all else is there. An
  // error: something is not, write what was there before.
  using Unclaimed = std::map<Ip, std::string>;
  Result<Unclaimed> write(const translate::Rules& wanted);

  // How the kernel differs from what was written, or from what another process wrote.
  struct Difference {
    translate::Rules missing{};  // rewrites; all of them if the chains are not ours any more
    translate::Rules claims_missing{};
    translate::Rules foreign{};                 // both
    std::vector<std::string> forwarding_off{};  // "IPv4", "IPv6"
    bool empty() const {
      return missing.empty() && claims_missing.empty() && foreign.empty() && forwarding_off.empty();
    }
  };
  Result<Difference> compare(const translate::Rules& wanted);
  // Whether there is one. Cheap while nobody touches nftables.
  Result<bool> is_as_wanted(const translate::Rules& wanted);
  // What differs is written anew; claims that could not be made are as in write().
  Result<Unclaimed> repair(const translate::Rules& wanted);

 private:
  struct Claim {
    translate::RuleKind kind{};
    std::string interface{};
  };
  using Kinds = std::map<Ip, translate::RuleKind>;

  Result<> write_rewrites(const os::Rewrites& rewrites);
  Result<bool> has_rewrites(const os::Rewrites& rewrites);
  void release_but(const Kinds& wanted);
  Unclaimed make(const Kinds& wanted);
  void compare_claims(const Kinds& wanted, const os::Claims& found, Difference& difference) const;
  void drop_foreign_claims(const Kinds& wanted);
  std::string interface_for(const Ip& address) const;

  os::AddressRewriting rewriting_;
  std::map<Ip, Claim> claims_;
};

}  // namespace godwit::agent

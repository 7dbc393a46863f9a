#pragma once
// Addresses that are at home at this host and have gone elsewhere with their guests (strategies
// endpoint and secondary-nic). Correspondents know the guests by them for as long as connections
// live, also when no relay here is left, so none is given to another guest meanwhile. Control
// thread.
#include <map>
#include <set>

#include "base/ip.hh"
#include "store/store.hh"

namespace godwit::agent {

class LentAddresses final {
 public:
  explicit LentAddresses(store::Store& store) : store_(store) {}

  void start();  // what was lent before
  // `relayed_until`: seconds since 1970; its connections may outlive that.
  void lend(const Ip& address, std::int64_t relayed_until);
  std::set<Ip> now() const;

 private:
  void forget_old();

  store::Store& store_;
  std::map<Ip, std::int64_t> until_;
};

}  // namespace godwit::agent

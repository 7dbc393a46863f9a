#pragma once
// What this host's kernel does for connections that outlived an address (strategy endpoint), as the
// moves and correspondents say that it concerns; and that it tracks the connections of guests.
// Written anew where somebody took it away. Control thread, in one network namespace.
#include <map>
#include <string>
#include <tuple>

#include "agent/asked_addresses.hh"
#include "agent/events.hh"
#include "agent/network.hh"
#include "os/connections.hh"
#include "os/loop.hh"
#include "os/moved_connections.hh"

namespace godwit::agent {

// What tells one connection from another.
using Ends = std::tuple<std::uint8_t, Ip, std::uint16_t, Ip, std::uint16_t>;
inline Ends ends_of(const os::Connection& each) {
  return {each.protocol, each.guest, each.guest_port, each.peer, each.peer_port};
}

class EndpointKernel final {
 public:
  static constexpr Nanoseconds kLookInterval = seconds(10);

  EndpointKernel(os::Loop& loop, Network& network, store::Store& store)
      : loop_(loop), network_(network), asked_(loop, network, store) {}

  // All at once what was set before: what the kernel still has from a life before stays until then,
  // as a connection whose packets are not led for a moment is reset.
  void start();
  // These may come, by this relay: what takes time for the first of them is done before.
  Result<> await(const std::string& owner, const std::set<Ip>& guests, const std::string& relay);
  // In place of what this owner had. An error: all is as before.
  Result<> set(const std::string& owner, const os::MovedRules& rules);
  void drop(const std::string& owner);
  // A guest here whose connections have another address on their way.
  bool is_on_its_way(const Ip& guest) const;

  // These connections, as guests here see them, have the mark's bits from now on and not those that
  // are cleared; those that are not tracked are, then. The error says how many are not.
  static Result<> mark(std::vector<os::Connection> connections, std::uint32_t bits,
                       std::uint32_t cleared = 0);
  // They are not tracked any more, but for those that have their other end here.
  Result<> forget(std::vector<os::Connection> connections) const;
  // Of these guests, in order; without those that are over, or that no other host can be told of.
  static Result<std::vector<os::Connection>> connections_of(const std::set<Ip>& guests);
  // Those whose peers know the guest by another address than its own have kRenamedMark, others not.
  Result<std::vector<os::Connection>> named_connections_of(const std::set<Ip>& guests) const;
  // Peers of some connections may: what comes by this host is not all for P.
  bool renames(const std::set<Ip>& guests) const;

 private:
  os::MovedRules all() const;
  Result<> write();
  void update();
  void look();
  void track();

  os::Loop& loop_;
  Network& network_;
  AskedAddresses asked_;
  std::map<std::string, os::MovedRules> parts_;
  std::map<std::string, std::set<Ip>> awaited_;
  os::MovedRules written_;
  std::set<Ip> tracked_;
  bool is_started_ = false;
  std::string trouble_;  // that was told
  os::Loop::Timer timer_;
};

}  // namespace godwit::agent

#pragma once
// A guest's packets by the host where its address is at home, to which an interface leads, and
// back: one of its own at each end (os::open_uplink), with a wire between them.
//
//   guest P ── host, relay ══ wire ══ relay, host where P is at home ── correspondents
//
// All in the calling thread's network namespace. Throw SetupError; harmless if repeated.
#include <set>
#include <string>

#include "base/ip.hh"

namespace godwit::os {

// Both: the interface forwards, whatever the address, and knows the other end without asking; IPv6
// if one of the guest's addresses is of that family, which an uplink does not speak by itself.
void be_relay(const std::string& interface, const std::set<Ip>& guests);
// From addresses that are routed by another interface, too.
void accept_detours(const std::string& interface);
// At the guest: what has kRelayMark (os/moved_connections.hh) goes by the relay.
void send_by_relay(const std::string& interface, const std::set<Ip>& guests);
void stop_sending_by_relay(const std::set<Ip>& guests);
// Where the guest goes, before it is routed there for all: what comes by the relay for it goes to
// its uplink.
void receive_by_relay(const std::string& interface, const std::set<Ip>& guests,
                      const std::string& uplink);
void stop_receiving_by_relay(const std::string& interface, const std::set<Ip>& guests);
// At home: the guest is at the other end of the relay. In place of what the route was.
void route_to_relay(const std::string& interface, const std::set<Ip>& guests);

}  // namespace godwit::os

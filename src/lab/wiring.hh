#pragma once
// The lab's network, laid through rtnetlink into the namespaces of its nodes:
//
//   e1 [eth0]---(veth)---[h0]  router-east  [wan0]~~~ TAP: emulator ~~~[wan0]  router-west ...
//   client [eth0]--------[h1]     [lan] bridge: the site's network
//
// All interfaces have the same mtu, at least 1500 and no less than any link's: only the emulator
// says what does not fit.
#include <vector>

#include "lab/address_plan.hh"
#include "lab/config.hh"
#include "os/fd.hh"

namespace godwit::lab {

void wire_router(const LabConfig& lab, const std::string& site, pid_t router);
void wire_host(const LabConfig& lab, const Host& host, pid_t init, pid_t router);
// As after a new lease: one address less, another more, by the same router.
void readdress_host(const LabConfig& lab, const Host& host, pid_t init, const Address& from,
                    const Address& to);
// The far ends of link `index` in both routers' namespaces: what is read from a descriptor left
// that router, what is written to it arrives there. Frames are plain Ethernet, none larger than the
// mtu: the kernel segments before, so that each packet queues for itself.
std::array<os::Fd, 2> wire_link(const LabConfig& lab, std::size_t index,
                                const std::array<pid_t, 2>& routers);
// Routes, and the site's NAT if it has one; when all links are there.
void route_router(const LabConfig& lab, const std::string& site, pid_t router);

}  // namespace godwit::lab

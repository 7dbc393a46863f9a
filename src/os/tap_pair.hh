#pragma once
// A guest's NIC as a pair of TAPs, because a TAP's descriptor belongs to one side:
//
//   guest -- virtio-net -- QEMU ==fd== [NAMEg]  fwd  [NAMEa] ==fd== agent (wire thread)
//                                         <- nftables ->
//
// What comes in at either interface goes out of the other, inside the kernel and without a bridge:
// two netdev chains with `fwd` on ingress. Super-frames and their virtio headers pass unchanged.
// The host's stack neither sees the frames nor adds its own (no addresses, no IPv6).
//
// QEMU gets a copy of NAMEg's descriptor; ours is kept, and reads what QEMU left when it stopped.
//
// Restart of the agent: nothing here is persistent. NAMEg lives on by QEMU's descriptor, NAMEa and
// its queue end with the agent. reattach() makes NAMEa anew, replaces the rules and copies NAMEg's
// descriptor out of the QEMU process; the guest sees no link change. Frames of the time between are
// lost, like those of a pulled cable: a persistent NAMEa would lose them too, having no reader.
// When both QEMU and agent are gone, both interfaces are; the table of rules that a killed agent
// leaves behind leads nowhere then, and remove_stale() takes it away.
#include <string>

#include "base/id.hh"
#include "os/child.hh"
#include "os/tap.hh"

namespace godwit::os {

class TapPair final {
 public:
  struct Options {
    std::string name;  // 1 to 14 of [a-z0-9]; see name_of()
    unsigned mtu = kDefaultMtu;
    bool udp_segmentation = true;
  };

  // A name made from a port's id: unique on a host for all practical purposes (48 random bits).
  static std::string name_of(const PortId& port);
  // Both throw SetupError; they act in the calling thread's namespace, where the pair must also
  // end.
  static TapPair create(const Options& options);
  static TapPair reattach(const Options& options, const Child& qemu);
  // Removes the rules of all pairs without an agent's side, which died with its agent.
  static void remove_stale();

  TapPair(TapPair&& other) noexcept;
  TapPair& operator=(TapPair&&) = delete;
  ~TapPair();

  // For Command::fds and `-netdev tap,fd=`; the process gets a copy.
  const Fd& guest_fd() const { return guest_.fd(); }
  Tap& agent_side() { return agent_; }
  const std::string& guest_interface() const { return guest_.name(); }
  const std::string& agent_interface() const { return agent_.name(); }

  // After QEMU's STOP: the next frame on its way to the guest that QEMU did not take; 0: no more.
  std::size_t read_untaken(MutableBytes into);
  // What the guest sees as its cable; for QEMU itself prefer set_link.
  void set_guest_carrier(bool carrier) { guest_.set_carrier(carrier); }
  void set_mtu(unsigned mtu);
  // Frames the kernel dropped since the pair was made because a reader was late.
  struct Lost {
    std::uint64_t to_agent = 0;
    std::uint64_t to_guest = 0;
  };
  Lost lost();

 private:
  TapPair(Options options, Tap guest, Tap agent);
  void join();

  Options options_;
  Tap guest_;
  Tap agent_;
  Netlink netlink_;
  bool joined_ = false;
};

}  // namespace godwit::os

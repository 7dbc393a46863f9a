#pragma once
// NICs that are plugged into a running vm's slots, and out of them.
//
//   plug:    getfd ──▶ netdev_add ──▶ device_add        a step that fails takes back those before
//   unplug:  device_del ──▶ the guest lets go (DEVICE_DELETED) ──▶ netdev_del
//               ▲   not yet   │
//               └─────────────┘
// The guest may take its time, or not hear of the request, as while it boots: it is repeated.
#include <memory>

#include "os/fd.hh"
#include "qemu/commands.hh"
#include "qemu/vm_spec.hh"

namespace godwit::qemu {

// In all. A Linux guest lets go of a NIC within a second or so.
inline constexpr Nanoseconds kUnplugLimit = seconds(30);

// `nic` has a slot; `tap`: a duplicate, with IFF_VNET_HDR, that becomes QEMU's. Nothing is left of
// what failed.
void plug_nic(Qmp& qmp, const NicSpec& nic, os::Fd tap, Done done);

// Whether a NIC is in its slot.
void has_nic(Qmp& qmp, const NicSpec& nic, Answer<bool> answer);

// Takes a NIC out of its slot; one that is out already is no error. `done` is called once, from the
// loop, and may destroy this; with an error the NIC is still plugged. Destroying this leaves it
// open whether the guest lets go: to be asked again.
class NicUnplug final {
 public:
  NicUnplug(Qmp& qmp, const NicSpec& nic, Done done, Nanoseconds limit = kUnplugLimit);
  ~NicUnplug();
  // Of the vm, whichever they are. They make it quick; without them it asks each second.
  void on_event(const QmpEvent& event);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace godwit::qemu

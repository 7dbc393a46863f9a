#pragma once
// The one frame that a stopped QEMU keeps to itself, and how a move gets it back.
//
// QEMU goes on reading its TAP after STOP: it takes one more frame, finds that the vm does not run,
// puts the frame in a queue of its own and only then stops reading (7.2: net/tap.c, tap_send;
// net/queue.c, qemu_net_queue_send). The queue is not part of the vm's state, so that frame would
// be lost by every move (real_qemu_test.cc shows it). If the vm continues here QEMU delivers it.
//
// Whether a frame is trapped is found out with a plug, a frame that no guest takes for its own:
//
//   armed: the agent writes f1 f2 f3 f4 to the NIC and keeps copies;  STOP somewhere between
//   after STOP: write nothing more but the plug, wait for main_loop_barrier(), read what is left:
//     left: f3 f4 plug  -> QEMU stopped reading before f3: f2 is trapped; forward f2 f3 f4
//     left: nothing     -> QEMU took the plug itself: no frame of ours is trapped
//
// QEMU may also have dropped the frame before, f1: one that waited for room in the guest's receive
// ring, or that was read while the vCPUs were about to stop, if QEMU stops them by itself.
// Neither may be delivered, and once the vCPUs stand QEMU throws such a frame away
// (qemu_can_send_packet; net/net.c, net_vm_change_state_handler). f1 was dropped if what the ring
// got last is not f1 but the frame before it (receive_ring.hh).
#include <deque>
#include <vector>

#include "qemu/commands.hh"

namespace godwit::qemu {

// What is kept while armed; older copies are dropped. More than a TAP's queue holds.
inline constexpr std::size_t kMaxKeptFrames = 8192;
inline constexpr std::size_t kMaxKeptBytes = 32U << 20;

// With its virtio_net_hdr of 10 bytes: EtherType 0x88b5 (IEEE 802, local experimental) to a
// locally administered address.
Bytes plug_frame();
bool is_plug(BytesView frame);

// `done` follows once QEMU's main loop has been all the way round since the call, so that it has
// seen whatever was in its descriptors.
void main_loop_barrier(Qmp& qmp, Done done);

// Copies of what was written to one NIC; pure. Armed from shortly before STOP until the move ends.
class TrappedFrame final {
 public:
  void wrote(BytesView frame);
  struct Recovered {
    std::vector<Bytes> frames;  // to be forwarded, in order: dropped, trapped, untaken
    Bytes trapped;              // of those, the one that QEMU delivers itself if it resumes
    bool lost_one = false;      // one is trapped that was written before arming
  };
  // `untaken`: all that was read back after the barrier, in order, with the plug if it is there.
  // `newest`: the end of what the guest got last, empty if that is not known.
  Recovered recover(std::vector<Bytes> untaken, BytesView newest) const;

 private:
  std::deque<Bytes> kept_;
  std::size_t bytes_ = 0;
};

}  // namespace godwit::qemu

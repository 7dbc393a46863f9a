#pragma once
// The disks of a libvirt domain on their way out. libvirt has QEMU mirror them to the target's
// QEMU, all of them and what the guest writes meanwhile; this is the server that it mirrors to:
//
//   QEMU's mirror --NBD--> DiskTap --> records --> DiskPacker --> TransferLink
//         '<-- answers <-- acknowledgements: made at the target --'
//
// QEMU mirrors each write of the guest before that is done there. At first they are answered at
// once, so that neither they nor the copy wait for the link; once memory moves, when they are made
// at the target: so when QEMU ends its mirror the target's QEMU has all, and libvirt may let it
// open its disks. When none is made for kPatience while one waits, which may be the guest's, this
// has failed. Owned by a LibvirtSource; control thread, compression in one of its own.
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/disk_coding.hh"
#include "agent/disk_tap.hh"
#include "agent/transfer_link.hh"
#include "disk/record.hh"

namespace godwit::agent {

class MirrorSource final {
 public:
  // Listens at `socket`; throws SetupError. `link` has to outlive it. `failed`: once.
  MirrorSource(os::Loop& loop, const std::string& socket, std::vector<nbd::Export> disks,
               TransferLink& link, std::function<void(std::string)> failed);
  ~MirrorSource();

  static constexpr Nanoseconds kPatience = seconds(4);

  // From now on each is answered when it is made; `in_step` when all that went before is.
  void keep_in_step(std::function<void()> in_step);

  std::uint64_t sent_bytes() const { return packer_.coded_bytes(); }

 private:
  void written(const DiskTap::Write& write);
  void add(const disk::Record& record);
  void pack();
  void offer();
  std::size_t take(BytesView acknowledgements);
  void answer();
  void answer_early();
  void look();

  struct Waiting {
    std::uint64_t record;  // its last
    std::uint64_t request, bytes;
    bool may_be_early, is_answered = false;
  };

  os::Loop& loop_;
  TransferLink& link_;
  std::function<void(std::string)> failed_;
  DiskPacker packer_;
  Bytes records_;  // for the next batch
  Bytes ack_;      // as far as it came
  std::deque<Waiting> waiting_;
  std::uint64_t sent_ = 0, acked_ = 0;              // records
  std::uint64_t early_bytes_ = 0, most_early_ = 0;  // answered, not made
  Instant progress_{};                              // when one was made, or began to wait
  std::function<void()> in_step_;
  std::uint64_t in_step_at_ = 0;  // records
  bool early_ = true, packs_ = false, offering_ = false;
  os::Loop::Timer look_timer_;
  DiskTap tap_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// The disks of a vm on their way out, beside its memory and by the same transfer, or alone, for a
// replica:
//
//   guest's writes --NBD--> DiskTap --> disk::Outbound --> DiskPacker --> TransferLink
//   QEMU's exports <--NBD-- BlockClient <-- reads '            '<-- acknowledgements
//                                                              '<-- what the target has already
//
// Owned by a SourceMove or ReplicaSource; control thread, compression in one of its own. QEMU's
// disk is whole until the target owns the vm: whatever fails here, the guest goes on.
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "agent/disk_coding.hh"
#include "agent/disk_tap.hh"
#include "agent/transfer_link.hh"
#include "agent/vm.hh"
#include "disk/outbound.hh"
#include "disk/write_pace.hh"
#include "qemu/block_client.hh"
#include "qemu/disk_snapshots.hh"

namespace godwit::agent {

class DiskSource final : disk::OutboundSink {
 public:
  struct Events {
    std::function<void()> begun;    // what there is to copy is known
    std::function<void()> ready;    // so little is left that the memory may follow; once
    std::function<void()> in_step;  // may_pause() is true again
    std::function<void()> settled;  // after settle(): all is at the target, on stable storage
    std::function<void(std::string)> failed;
  };
  struct Progress {
    std::uint64_t total_bytes = 0;      // to send or to compare when it began
    std::uint64_t remaining_bytes = 0;  // by now, with what the guest has written since
    std::uint64_t sent_bytes = 0;       // for them by the lanes, compressed
    std::uint64_t same_bytes = 0;       // found at the target
    std::uint64_t elsewhere_bytes = 0;  // found there, but not on these disks
    BitRate rate;                       // of the disks' bytes
    bool ready = false, synchronous = false;
    Nanoseconds eta{};
    // Of the guest's writes that were kept in step: until they were answered; and before the move.
    Nanoseconds mean_write{}, slowest_write{}, usual_write{};
    BitRate held_back{};  // the transfer, for their sake; zero: it is not
  };

  // Of a replica: what is there as it begins, and no word of what is written meanwhile.
  struct Once {
    std::optional<std::string> bitmap{};  // only what is in it; else all that the target lacks
    // If there are some: what these are made of in the disks' files, and not the disks.
    std::vector<qemu::DiskSnapshots> snapshots{};
    bool operator==(const Once&) const = default;
  };
  using What = std::variant<disk::Mode, Once>;

  // `link` has to outlive it.
  DiskSource(os::Loop& loop, Vm& vm, TransferLink& link, What what, Events events);
  ~DiskSource() override;

  void start();
  // The transfer is held back while writes in step take longer; zero: it is not.
  void limit_writes(Nanoseconds limit) { pace_ = disk::WritePace(limit); }
  // What is left fits the pause: nothing, where they are kept in step.
  bool may_pause() const;
  // The guest is about to be stopped.
  void release_writes();
  // The guest stands: the rest goes, and QEMU lets go of its disks' taps. (Once: done by itself.)
  void settle();
  // Nothing goes any more; `done` when QEMU has let go of its disks, or does not, and this may end.
  // If it is asked again meanwhile: by the last.
  void abandon(std::function<void()> done);
  Progress progress() const;

 private:
  // disk::OutboundSink
  void read(std::uint8_t disk, disk::Extent extent) override;
  void send(const disk::Record& record) override;
  void answer(disk::WriteToken token) override;

  const Once* once() const { return std::get_if<Once>(&what_); }
  bool sends_snapshots() const { return once() && !once()->snapshots.empty(); }
  std::optional<std::string> bitmap() const { return once() ? once()->bitmap : std::nullopt; }
  void serve();
  std::vector<std::size_t> disks_with_snapshots() const;
  std::vector<std::string> nodes() const;
  void connect_clients(const std::string& socket);
  void tap();
  void scan();
  void scan(std::uint8_t disk);
  void scanned();
  void written(const DiskTap::Write& write);
  std::size_t take(BytesView acknowledgements);
  Result<> acknowledged();
  std::size_t take_seeds(BytesView parts);
  void learn();
  void pump();
  void offer();
  void look();
  void maybe_settled();
  template <class Next>
  qemu::Done asked(Next next);
  void take_down();
  void untap_by_force();
  void unexport();
  void look_at_writes(Instant now);
  void fail_with(const std::string& why);

  os::Loop& loop_;
  Vm& vm_;
  TransferLink& link_;
  What what_;
  std::vector<qemu::DiskSpec> disks_;  // as they cross
  Events events_;
  std::vector<std::unique_ptr<qemu::BlockClient>> clients_;
  std::unique_ptr<DiskTap> tap_;
  disk::Outbound outbound_;
  DiskPacker packer_;
  Bytes records_;  // for the next batch
  Bytes acks_;     // as far as they came
  disk::SeedReader seed_reader_;
  bool hears_ = false, seeds_wait_ = false, learning_ = false;
  std::size_t connected_ = 0, to_scan_ = 0;
  bool scanning_ = false, ready_ = false, could_pause_ = false, pumping_ = false;
  bool asking_ = false;  // QEMU, for what start() and settle() need of it
  std::function<void()> abandoned_;
  bool settling_ = false, untapped_ = false, unexporting_ = false, unexported_ = false,
       settled_ = false, failed_ = false, tapped_ = false;
  std::uint64_t total_bytes_ = 0;
  // For when it is ready, and for what is told.
  std::uint64_t least_remaining_ = ~std::uint64_t{0};
  std::uint64_t acked_before_ = 0;
  Instant least_since_{}, looked_{}, flushed_{};
  Nanoseconds writes_took_{}, slowest_write_{};  // in step
  Nanoseconds usual_write_{};                    // before
  disk::WritePace pace_{Nanoseconds(0)};
  Instant paced_{};
  Nanoseconds writes_took_then_{};
  std::int64_t writes_then_ = 0;
  BitRate held_back_{};
  std::int64_t writes_ = 0;  // of these
  bool hearing_ = false;     // of a write, from the tap
  double rate_ = 0;          // bytes of the disks per second
  std::uint64_t handled_bytes_ = 0, handled_before_ = 0;
  os::Loop::Timer look_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

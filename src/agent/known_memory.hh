#pragma once
// What this host still has of the memory of vms that left it, or that came in part: for an hour,
// compressed, in the agent's memory only. A move of such a vm to here sends what differs
// (codec/known_pages.hh). Control thread; pages are read and compressed in a thread of its own.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "agent/worker.hh"
#include "base/id.hh"
#include "base/units.hh"
#include "codec/known_pages.hh"
#include "os/child.hh"
#include "os/loop.hh"

namespace godwit::agent {

// A gigabyte is read and compressed in 3 to 5 s.
inline constexpr Nanoseconds kKnownWait = seconds(15);
inline constexpr Nanoseconds kKnownFor = std::chrono::hours(1);

class KnownMemory final {
 public:
  // `key`: of the names of pages (digest_key.hh). `budget`: of all vms, compressed; zero: nothing
  // is kept.
  KnownMemory(os::Loop& loop, BytesView key, ByteCount budget, Nanoseconds keep_for = kKnownFor);
  ~KnownMemory();

  // After `delay`: reads what the vm's QEMU has, whose vCPUs must not run here any more, and adds
  // what was known of the vm before. `done`: QEMU may end.
  void keep(const VmId& vm, ByteCount memory, const os::ProcessIdentity& qemu, Nanoseconds delay,
            std::function<void()> done);
  // At once, or when what is being read of the vm is there; at most after kKnownWait. Nothing
  // known: null.
  using Found = std::function<void(std::shared_ptr<const codec::KnownPages>)>;
  void find(const VmId& vm, Found found);
  void forget(const VmId& vm) { known_.erase(vm); }
  ByteCount size() const;

 private:
  struct Known {
    std::shared_ptr<const codec::KnownPages> pages;
    Instant since{};
    os::Loop::Timer end;
  };
  struct Reading {
    int readers = 0;
    std::vector<Found> waiting{};
    os::Loop::Timer patience{};
  };
  std::shared_ptr<const codec::KnownPages> known(const VmId& vm) const;
  void read(const VmId& vm, ByteCount memory, const os::ProcessIdentity& qemu,
            std::function<void()> done);
  void kept(const VmId& vm, std::shared_ptr<const codec::KnownPages> pages);
  void answer(const VmId& vm);

  os::Loop& loop_;
  Bytes key_;
  ByteCount budget_;
  Nanoseconds keep_for_;
  std::map<VmId, Known> known_;
  std::map<VmId, Reading> reading_;
  std::map<std::uint64_t, os::Loop::Timer> delays_;
  std::uint64_t next_delay_ = 0;
  std::atomic<bool> ending_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

}  // namespace godwit::agent

#pragma once
// What this host has that may be in disks that come, too: images of its library, and disks that
// vms left when they moved away or were removed. Each has an index (content_file.hh), made once, in
// the background:
//
//   STATE_DIR/contents/NAME.index       of what has that name
//
// A vm is told of what its tenant may see: images that are its own or public, and disks of its own.
// Of a running vm's disk there is none: it would be of the past as soon as it is made. The key of
// all digests is this host's, made once and kept in its store.
//
// Control thread; what takes long is done by workers.
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/config.hh"
#include "agent/disks.hh"
#include "agent/elsewhere.hh"
#include "agent/images.hh"
#include "agent/worker.hh"
#include "store/store.hh"

namespace godwit::agent {

// Of one vm: each is a process while the vm's disks come, if they have something of it.
inline constexpr std::size_t kMostContents = 64;

class Contents final {
 public:
  Contents(os::Loop& loop, const Config& config, store::Store& store, Images& images, Disks& disks);
  ~Contents();

  // Begins: before that there is nothing. After Images and Vms did so.
  void start();
  // What came is indexed, and the index of what went is removed. To be called after every change.
  void look();
  // For disks of a vm that is about to come; null: there is nothing. Later.
  using Found = std::function<void(std::shared_ptr<const Elsewhere>)>;
  void find(const qemu::VmSpec& vm, Found found);
  // Nothing is being indexed.
  bool idle() const { return !looking_; }

 private:
  void begin();
  // nullptr: for everybody.
  std::vector<Content> contents_for(const qemu::VmSpec* vm);

  os::Loop& loop_;
  const Config& config_;
  store::Store& store_;
  Images& images_;
  Disks& disks_;
  std::filesystem::path directory_;
  Bytes key_;  // empty: none could be made
  bool looking_ = false, again_ = false;
  std::map<std::string, Bytes> hopeless_;  // by name, as it was; the indexer's
  std::atomic<bool> ending_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker finder_, indexer_;  // the last: they end first
};

}  // namespace godwit::agent

#pragma once
// What this host has that may be in disks that come, too: images of its library, and disks that
// vms left when they moved away or were removed. Each has an index (content_file.hh), made once, in
// the background:
//
//   STATE_DIR/contents/NAME.index       of what has that name: its blocks
//   STATE_DIR/contents/NAME.pages       and of an image its pages of memory
//
// A vm is told of what its tenant may see: images that are its own or public, and disks of its own.
// Of a running vm's disk there is none: it would be of the past as soon as it is made.
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
#include "agent/image_pages.hh"
#include "agent/images.hh"
#include "agent/worker.hh"

namespace godwit::agent {

// Of one vm: each is a process while the vm's disks come, if they have something of it.
inline constexpr std::size_t kMostContents = 64;

class Contents final {
 public:
  // `key`: of digests (digest_key.hh).
  Contents(os::Loop& loop, const Config& config, BytesView key, Images& images, Disks& disks);
  ~Contents();

  // Begins: before that there is nothing. After Images and Vms did so.
  void start();
  // What came is indexed, and the index of what went is removed. To be called after every change.
  void look();
  // For disks of a vm that is about to come; null: there is nothing. Later.
  using Found = std::function<void(std::shared_ptr<const Elsewhere>)>;
  void find(const qemu::VmSpec& vm, Found found);
  // For the memory of one: of images only, as what is not there when it is wanted ends the move.
  // At most so many pages.
  using FoundPages = std::function<void(std::shared_ptr<ImagePages>)>;
  void find_pages(const qemu::VmSpec& vm, std::size_t most, FoundPages found);
  // Nothing is being indexed.
  bool idle() const { return !looking_; }

 private:
  void begin();
  void doubt(const std::string& name);
  // nullptr: for everybody.
  std::vector<Content> contents_for(const qemu::VmSpec* vm);

  os::Loop& loop_;
  const Config& config_;
  Images& images_;
  Disks& disks_;
  std::filesystem::path directory_;
  Bytes key_;  // empty: there is no place for indexes
  bool looking_ = false, again_ = false;
  std::map<std::string, Bytes> hopeless_;  // by name, as it was; the indexer's
  std::atomic<bool> ending_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker finder_, indexer_;  // the last: they end first
};

}  // namespace godwit::agent

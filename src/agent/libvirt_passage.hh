#pragma once
// What a libvirt domain's move has open at its source: the sockets that libvirt and its QEMU use,
// and what brings their bytes to the target. Owned by a LibvirtSource; control thread.
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "agent/lane_dialer.hh"
#include "agent/libvirt_record.hh"
#include "agent/libvirt_tunnel.hh"
#include "agent/mirror_source.hh"
#include "agent/transfer_link.hh"
#include "migrate/report.hh"

namespace godwit::agent {

class LibvirtPassage final {
 public:
  struct Events {
    std::function<void(const stream::QemuMark&)> mark;
    std::function<void()> memory_begins;  // the disks are copied
    std::function<void(std::string)> failed;
  };

  // Throws SetupError.
  LibvirtPassage(os::Loop& loop, Peers& peers, const LibvirtSourceRecord& record,
                 LibvirtSockets sockets, const std::optional<codec::Settings>& codec,
                 Events events);
  ~LibvirtPassage();

  void silence() { events_ = {.mark = {}, .memory_begins = {}, .failed = {}}; }
  TransferLink& link() { return *link_; }
  // Of the disks, over the lanes; nothing where there are none.
  std::optional<std::uint64_t> disk_bytes() const;

 private:
  void take_memory(std::unique_ptr<os::ByteStream> qemu);
  void fail_with(const std::string& why);

  LibvirtSockets sockets_;
  Events events_;
  std::unique_ptr<TransferLink> link_;
  std::unique_ptr<LaneDialer> dialer_;
  std::unique_ptr<MirrorSource> mirror_;
  std::unique_ptr<os::Listener> memory_;
  std::unique_ptr<TunnelEntry> tunnel_;
};

}  // namespace godwit::agent

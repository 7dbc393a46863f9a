#pragma once
// The disks of a vm as they come in, beside its memory and by the same transfer:
//
//   TransferLink --> DiskUnpacker --> disk::Inbound --> BlockClient --NBD--> qemu::StorageDaemon
//        '<-- acknowledgements: how many records it has made                   |
//        '<-- DiskSeeds: what was there before them  <-------------------------|
//             ContentReader: what is elsewhere at this host ------------------>'
//
// Of a libvirt domain its own QEMU takes the storage daemon's place. Owned by a TargetMove,
// ReplicaTarget or LibvirtTarget; control thread, decompression in one of its own.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/content_reader.hh"
#include "agent/disk_coding.hh"
#include "agent/disk_seeds.hh"
#include "agent/transfer_link.hh"
#include "disk/inbound.hh"
#include "qemu/block_client.hh"
#include "qemu/storage_daemon.hh"
#include "qemu/vm_spec.hh"

namespace godwit::agent {

class DiskTarget final : disk::InboundSink {
 public:
  struct Events {
    std::function<void()> ready;     // they can be written
    std::function<void()> closed{};  // all is made, on stable storage, and nobody has them open
    std::function<void(std::string)> failed;
  };

  // Of `vm`, in these files; `link` has to outlive this.
  // Seeds::none: the source knows what differs, and does not ask what is here.
  enum class Seeds { all, none };
  // `elsewhere`: what this host has that disks may be made of, which the source has asked for;
  // null: nothing.
  DiskTarget(os::Loop& loop, qemu::VmSpec vm, std::vector<qemu::DiskPaths> paths, Seeds seeds,
             std::shared_ptr<const Elsewhere> elsewhere, TransferLink& link, Events events);
  ~DiskTarget() override;

  // With a socket in this directory, which is made.
  void start(const std::filesystem::path& directory);
  // Or another offers them at this socket, by these names, from when the first record comes.
  struct Served {
    std::string socket;
    std::vector<std::string> exports;
  };
  void use(Served served) { served_ = std::move(served); }

 private:
  // disk::InboundSink
  void write(std::uint64_t number, std::uint8_t disk, std::uint64_t offset,
             BytesView data) override;
  void zero(std::uint64_t number, std::uint8_t disk, disk::Extent extent) override;
  void copy(std::uint64_t number, std::uint8_t disk, disk::Extent extent,
            const disk::Digest& digest) override;
  void flush(std::uint64_t number) override;

  std::size_t take(BytesView coded);
  void connect_clients();
  void not_served(const std::string& why);
  void came(const Result<Bytes>& records);
  qemu::BlockClient::Done when_done(std::uint64_t number);
  void not_there(std::uint64_t number);
  void made(std::uint64_t number);
  void close();
  void acknowledge();
  void fail_with(const std::string& why);

  os::Loop& loop_;
  qemu::VmSpec vm_;
  std::vector<qemu::DiskPaths> paths_;
  Seeds wanted_;
  std::shared_ptr<const Elsewhere> elsewhere_;
  TransferLink& link_;
  Events events_;
  std::unique_ptr<qemu::StorageDaemon> daemon_;
  Served served_;
  std::optional<DiskSeeds> seeds_;
  std::optional<ContentReader> reader_;  // of elsewhere_
  DiskSeeds::Clients clients_;
  disk::Inbound inbound_;
  DiskUnpacker unpacker_;
  std::size_t connected_ = 0;
  bool ready_ = false, took_less_ = false, closing_ = false, closed_ = false, failed_ = false;
  bool acknowledging_ = false;
  std::uint64_t acknowledged_ = 0;
  Bytes ack_;  // what the link has not taken yet
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

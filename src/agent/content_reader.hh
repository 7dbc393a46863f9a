#pragma once
// Reads blocks that this host has elsewhere, by their digests: where the index says, and only what
// has that digest there still. What they are in is opened when the first of it is asked for, by a
// storage daemon of its own, which looks only: what is in a file that is not sound harms nothing
// but that.
//
// Owned by a DiskTarget; control thread.
#include <deque>
#include <functional>
#include <map>
#include <memory>

#include "agent/elsewhere.hh"
#include "os/loop.hh"
#include "qemu/block_client.hh"
#include "qemu/storage_daemon.hh"

namespace godwit::agent {

class ContentReader final {
 public:
  // With a directory for sockets within `directory`, which is there when the first is asked for.
  ContentReader(os::Loop& loop, std::shared_ptr<const Elsewhere> elsewhere,
                std::filesystem::path directory);
  ~ContentReader();

  // So many bytes with this digest; an error: they are not here, or not any more. Later.
  using Came = std::function<void(const Result<Bytes>&)>;
  void read(const disk::Digest& digest, std::size_t length, Came came);

 private:
  struct Wanted {
    Elsewhere::Block block;
    std::size_t length = 0;
    Came came;
  };
  struct Source {
    std::filesystem::path directory;
    std::unique_ptr<qemu::StorageDaemon> daemon;
    std::unique_ptr<qemu::BlockClient> client;
    bool is_ready = false;
    std::string broken;          // and why
    std::deque<Wanted> waiting;  // until it is ready
  };

  Source& open(std::uint32_t content);
  void open(std::uint32_t content, Source& source);
  void give_up(Source& source, const std::string& why);
  void read(Source& source, Wanted wanted);
  void refuse(Came came, const std::string& why);

  os::Loop& loop_;
  std::shared_ptr<const Elsewhere> elsewhere_;
  std::filesystem::path directory_;
  crypto::KeyedHash digest_;
  std::map<std::uint32_t, Source> sources_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

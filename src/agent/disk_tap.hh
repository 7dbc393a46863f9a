#pragma once
// Where QEMU tells, over NBD, what a moving vm's guest writes: the server that its mirror jobs
// write to. One connection for each disk. Owned by a DiskSource; control thread.
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nbd/connection.hh"
#include "os/byte_stream.hh"
#include "os/socket.hh"

namespace godwit::agent {

class DiskTap final {
 public:
  // Of which disk, and how answer() names it.
  struct Write {
    std::size_t disk = 0;
    std::uint64_t number = 0;
    const nbd::Request& request;
  };
  struct Events {
    std::function<void(const Write&)> write;  // WRITE, WRITE_ZEROES, TRIM, FLUSH; answer it
    std::function<void(std::string)> lost;    // a connection that had chosen its disk
  };

  // Listens at `path`, for QEMU's user; throws SetupError. Exports are the disks, by name.
  DiskTap(os::Loop& loop, const std::string& path, std::vector<nbd::Export> disks, Events events);
  ~DiskTap();

  // How long it waited; zero where QEMU is gone.
  Nanoseconds answer(std::uint64_t number);

 private:
  struct Client {
    explicit Client(std::vector<nbd::Export> disks) : nbd(std::move(disks)) {}
    nbd::Connection nbd;
    std::unique_ptr<os::ByteStream> stream;
    bool full = false, gone = false;
  };
  struct Waiting {
    std::weak_ptr<Client> client;
    nbd::RequestId id;
    Instant since;
  };

  void accept(std::unique_ptr<os::ByteStream> stream);
  void drive(const std::shared_ptr<Client>& client);
  bool read_some(Client& client);
  void take_requests(const std::shared_ptr<Client>& client);
  void write_some(Client& client);
  void drop(const std::shared_ptr<Client>& client, const std::string& why);

  os::Loop& loop_;
  std::vector<nbd::Export> disks_;
  Events events_;
  std::unique_ptr<os::Listener> listener_;
  std::vector<std::shared_ptr<Client>> clients_;
  std::map<std::uint64_t, Waiting> waiting_;  // by number
  std::uint64_t last_number_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

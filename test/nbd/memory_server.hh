#pragma once
// A disk in memory behind nbd::Connection, on a unix socket, in a thread of its own: an owner of
// connections as simple as it can be. It answers late and in another order than it was asked: what
// came together is carried out in order, and answered from the last to the first.
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "nbd/connection.hh"
#include "os/fd.hh"

namespace godwit::nbd {

class MemoryServer final {
 public:
  MemoryServer(std::string path, std::vector<Export> exports);
  ~MemoryServer();
  MemoryServer(const MemoryServer&) = delete;
  MemoryServer& operator=(const MemoryServer&) = delete;

  std::string uri(const std::string& name) const {
    return "nbd+unix:///" + name + "?socket=" + path_;
  }

  struct Counts {
    int connections = 0, failed = 0;
    int reads = 0, writes = 0, flushes = 0, trims = 0, zeroes = 0;
    int fua = 0, no_hole = 0, fast_zero = 0;  // requests with that flag
    std::size_t most_outstanding = 0;
    std::string failure{};  // the last
  };
  // After the connection that is served, if any, has ended: a client that is gone is counted.
  Counts counts();

 private:
  void serve();
  void serve_one(const os::Fd& socket);
  void carry_out(const Request& request, Bytes& disk);

  std::string path_;
  std::vector<Export> exports_;
  std::vector<Bytes> disks_;
  os::Fd listener_, stop_;
  std::mutex mutex_;
  std::condition_variable idle_;
  bool is_serving_ = false;
  Counts counts_;
  std::thread thread_;
};

}  // namespace godwit::nbd

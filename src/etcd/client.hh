#pragma once
// Keys of an etcd cluster. A thread of its own asks, one request at a time, so that nobody waits
// for a name, a handshake or an endpoint that is gone. Belongs to the thread of `loop`, which
// outlives it.
#include <atomic>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <thread>

#include "etcd/access.hh"
#include "etcd/keys.hh"
#include "os/loop.hh"

namespace godwit::etcd {

class Client final : public Keys {
 public:
  // More are refused at once: etcd does not answer, or somebody lists in a loop.
  static constexpr std::size_t kMostWaiting = 16;

  Client(os::Loop& loop, Access access);
  ~Client() override;  // requests that wait are dropped

  void read(const std::vector<std::string>& keys, Answer<Found> answer) override;
  void list(const std::string& prefix, std::size_t limit, Answer<Found> answer) override;
  void write(const Write& write, Answer<bool> answer) override;

 private:
  struct Work;

  template <class T>
  void ask(const char* path, nlohmann::json body, Result<T> (*parse)(const nlohmann::json&),
           Answer<T> answer);

  os::Loop& loop_;
  std::atomic<bool> stops_ = false;
  std::size_t waiting_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  std::shared_ptr<Work> work_;  // the thread's
  std::thread thread_;
};

}  // namespace godwit::etcd

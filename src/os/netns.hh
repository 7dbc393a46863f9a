#pragma once
// Network namespaces (network_namespaces(7)). A namespace lives as long as a process is in it or a
// descriptor or bind mount names it. Being in one is a property of the calling thread only.
#include <sys/types.h>

#include <functional>
#include <string>
#include <type_traits>

#include "os/fd.hh"

namespace godwit::os {

class NetNamespace final {
 public:
  // A new one, with nothing in it but `lo` (down); gone when the last user is. All throw
  // SetupError.
  static NetNamespace create();
  static NetNamespace current();
  static NetNamespace of_process(pid_t pid);
  static NetNamespace open(const std::string& path);

  const Fd& fd() const { return fd_; }
  // Binds it to a path, e.g. /run/netns/NAME for `ip netns exec NAME`; unbind removes that.
  void bind(const std::string& path) const;
  static void unbind(const std::string& path);  // a missing path is fine

  // Moves the calling thread in for good.
  void enter() const;
  // Runs `work` inside, then returns the calling thread to where it was; its exceptions pass on.
  template <class Work>
  auto run(Work&& work) const {
    const Visit visit(*this);
    return std::forward<Work>(work)();
  }

  // The calling thread is inside while this lives. To visit where one is needs no privileges.
  class Visit final {
   public:
    explicit Visit(const NetNamespace& inside);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    Fd before_;
  };

 private:
  explicit NetNamespace(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace godwit::os

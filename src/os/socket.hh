#pragma once
// Byte streams over the kernel's sockets: TCP, unix, or any connected stream socket handed to us;
// and the listener that accepts them. All non-blocking, all in their loop's thread.
//
// Reading is edge-like: `readable` comes again only after read() has returned 0, so a consumer that
// stops reading (back-pressure) costs no wake-ups. The end of the peer's bytes comes the same way:
// readable, read() == 0, closed(""). After closed("") writing still works (the peer half-closed);
// after a failure write() swallows what it is given, so that a flush-then-destroy always ends.
#include <netinet/in.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>

#include "base/units.hh"
#include "os/byte_stream.hh"
#include "os/endpoint.hh"
#include "os/loop.hh"

namespace godwit::os {

class SocketStream final : public ByteStream {
 public:
  enum class State { kConnecting, kOpen, kFailed };

  // Made by the functions below. `failure` is what closed() will say when connecting failed at
  // once.
  SocketStream(Loop& loop, Fd fd, std::string peer, State state, std::string failure = {});

  void start(Events events) override;
  std::size_t read(MutableBytes into) override;
  // While connecting nothing is taken; `writable` tells when the connection is there, whether or
  // not anybody tried to write.
  std::size_t write(BytesView from) override;
  std::size_t write_with(BytesView from, int descriptor) override;
  void finish() override;
  std::string peer() const override { return peer_; }

  const Fd& fd() const { return fd_; }  // for os/tcp.hh; do not read or write through it

 private:
  void on_events(std::uint32_t events);
  void on_connected();
  void fail(std::string reason);
  void schedule_closed();
  void update_interest();

  Loop& loop_;
  Fd fd_;
  std::string peer_;
  State state_;
  std::string failure_;
  // Shared so that a callback may destroy the stream while it runs.
  std::shared_ptr<Events> events_;
  Loop::Watch watch_;
  Loop::Timer closing_;
  std::uint32_t interest_ = 0;
  bool wants_read_ = true;    // read() returned 0 since `readable` was last called
  bool wants_write_ = false;  // write() took less than it was given
  bool finish_after_connect_ = false;
  bool ended_ = false;  // the peer's last byte was read, or the stream failed
};

// A failed connect arrives as closed(reason).
std::unique_ptr<SocketStream> tcp_connect(Loop& loop, const Endpoint& to);
std::unique_ptr<SocketStream> unix_connect(Loop& loop, const std::string& path);
// Any connected stream socket; `peer` is for messages.
std::unique_ptr<SocketStream> adopt_stream(Loop& loop, Fd fd, std::string peer);
// Two connected unix stream sockets (socketpair), e.g. one end for a child process.
struct SocketPair {
  Fd ours;
  Fd theirs;
};
SocketPair make_socket_pair();

// Who is at the other end of an accepted stream.
struct Accepted {
  Endpoint peer;   // TCP only
  Endpoint local;  // TCP only: the address the peer dialled
  struct Credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
  };
  std::optional<Credentials> credentials;  // unix only (SO_PEERCRED)
};

// Accepts streams until destroyed; a unix listener then removes its path.
class Listener final {
 public:
  using OnAccept = std::move_only_function<void(std::unique_ptr<SocketStream>, const Accepted&)>;

  // Port 0 lets the kernel choose: see local(). The IPv6 wildcard accepts IPv4 too, and falls back
  // to the IPv4 wildcard where the kernel has no IPv6. Throws SetupError.
  static std::unique_ptr<Listener> tcp(Loop& loop, const Endpoint& at, OnAccept on_accept);
  // A socket left by a dead process is replaced, one with a listener behind it is refused.
  // `mode`: permission bits, e.g. 0660. Throws SetupError.
  static std::unique_ptr<Listener> unix_(Loop& loop, const std::string& path, mode_t mode,
                                         OnAccept on_accept);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  const Endpoint& local() const { return local_; }
  const std::string& path() const { return path_; }

 private:
  Listener(Loop& loop, Fd fd, std::string path, OnAccept on_accept);
  void listen();
  void accept_some();
  void pause_accepting();

  Loop& loop_;
  Fd fd_;
  std::string path_;
  Endpoint local_;
  // Shared so that accepting may destroy the listener.
  std::shared_ptr<OnAccept> on_accept_;
  Loop::Watch watch_;
  Loop::Timer resume_;
};

}  // namespace godwit::os

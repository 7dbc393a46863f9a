#pragma once
// The target's libvirt, for the source's: what connects to a socket here comes out at the socket
// of the other host's libvirt, by connections of its own between the agents. They begin with the
// HELLO of a lane, of a transfer that is none; one byte says that the way is open. Control thread.
#include <list>
#include <memory>
#include <string>

#include "agent/peers.hh"
#include "os/socket.hh"
#include "session/splice.hh"
#include "stream/transfer_frame.hh"

namespace godwit::agent {

class TunnelEntry final {
 public:
  // Listens at `socket`; throws SetupError.
  TunnelEntry(os::Loop& loop, Peers& peers, std::string to, const stream::TransferId& id,
              const std::string& socket);

 private:
  struct Passage {
    std::unique_ptr<os::ByteStream> near, far;
    std::unique_ptr<session::Splice> splice;
  };
  void accept(std::unique_ptr<os::ByteStream> near);
  using Held = std::shared_ptr<Passage>;
  void greet(const Held& passage, std::unique_ptr<os::ByteStream> far);
  void open(const Held& passage);
  void drop(const Held& passage);

  os::Loop& loop_;
  Peers& peers_;
  std::string to_;
  stream::TransferId id_;
  std::list<std::shared_ptr<Passage>> passages_;
  std::unique_ptr<os::Listener> listener_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class TunnelExit final {
 public:
  // Each passage ends at this socket.
  TunnelExit(os::Loop& loop, std::string socket) : loop_(loop), socket_(std::move(socket)) {}

  // What an entry opened, after its HELLO.
  void use(std::unique_ptr<os::ByteStream> far);

 private:
  os::Loop& loop_;
  std::string socket_;
  std::list<std::unique_ptr<session::Splice>> splices_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// The control sockets of a lab (holder.sock, wan.sock): one JSON object per line each way, over a
// unix socket of the lab's owner only. A request has "do"; a reply has "error" when it failed.
#include <list>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/result.hh"
#include "os/loop.hh"
#include "os/socket.hh"

namespace godwit::lab {

constexpr std::size_t kControlRequestLimit = 64 * 1024;
constexpr std::size_t kControlReplyLimit = 4 * 1024 * 1024;
constexpr std::size_t kControlConnections = 32;

class ControlServer final {
 public:
  // What it throws or fails with becomes the reply's "error".
  using Handler = std::move_only_function<Result<nlohmann::json>(const nlohmann::json& request)>;
  ControlServer(os::Loop& loop, const std::string& path, Handler handler);
  ~ControlServer();

 private:
  struct Connection {
    std::unique_ptr<os::SocketStream> stream;
    std::string input;
    std::string output;
  };
  using Place = std::list<Connection>::iterator;

  void accepted(std::unique_ptr<os::SocketStream> stream);
  void readable(Place connection);
  void flush(Place connection);
  std::string answer(const std::string& line);

  Handler handler_;
  std::list<Connection> connections_;
  std::unique_ptr<os::Listener> listener_;
};

// Asks once, waiting for the answer; blocks at most `limit`.
Result<nlohmann::json> ask(const std::string& socket_path, const nlohmann::json& request,
                           Nanoseconds limit = seconds(10));

}  // namespace godwit::lab

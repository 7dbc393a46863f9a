#pragma once
// TCP connections of the guest: echoed bytes, or lines answered by a function.
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

struct pollfd;

namespace godwit::lab {

inline constexpr std::size_t kMaxConnections = 64;
inline constexpr std::size_t kEchoBuffer = 256 * 1024;  // per connection; full = stops reading
inline constexpr std::size_t kMaxLine = 256;

class TcpService final {
 public:
  // Turns what arrived (may be consumed in part) into what is to be sent; false ends the
  // connection.
  using Handler = std::function<bool(std::string& input, std::string& output)>;

  // `protocol`: of socket(2).
  TcpService(std::uint16_t port, Handler handler, int protocol = 0);

  void add_to(std::vector<pollfd>& polls) const;
  // The same entries in the same order, after poll(2).
  void handle(const pollfd* polls);

  std::uint64_t accepted() const { return accepted_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  struct Connection {
    int fd;
    std::string input;
    std::string output;
    bool ended = false;  // the peer sends no more
  };

  void accept();
  bool serve(Connection& connection, short events);  // false: over

  int listener_;
  Handler handler_;
  std::vector<Connection> connections_;
  std::uint64_t accepted_ = 0;
  std::uint64_t bytes_ = 0;
};

bool echo_handler(std::string& input, std::string& output);
// Calls `answer` with each whole line; its result is sent with a newline.
TcpService::Handler line_handler(std::function<std::string(const std::string&)> answer);

}  // namespace godwit::lab

#include "cli/console.hh"

#include <poll.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <ostream>

namespace godwit::cli {
namespace {

constexpr std::byte kLeave{0x1d};  // Ctrl-]
constexpr std::size_t kChunk = 4096;

// Raw mode while it lives: every key goes to the guest, Ctrl-C too.
class RawTerminal final {
 public:
  RawTerminal() {
    if (::tcgetattr(STDIN_FILENO, &saved_) != 0) return;
    active_ = true;
    termios raw = saved_;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~RawTerminal() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
  }
  RawTerminal(const RawTerminal&) = delete;
  RawTerminal& operator=(const RawTerminal&) = delete;
  bool active() const { return active_; }

 private:
  termios saved_{};
  bool active_ = false;
};

bool send_all(const os::Fd& fd, BytesView bytes) {
  while (!bytes.empty()) {
    const auto sent = ::send(fd.number(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return true;
}

class Console final {
 public:
  Console(os::Fd fd, std::ostream& out, bool escape)
      : fd_(std::move(fd)), out_(out), escape_(escape) {}

  void print(BytesView bytes) { out_ << as_text(bytes) << std::flush; }

  void run() {
    while (from_guest_) {
      std::array<pollfd, 2> watched = {
          pollfd{.fd = fd_.number(), .events = POLLIN, .revents = 0},
          pollfd{.fd = from_user_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}};
      if (::poll(watched.data(), watched.size(), -1) < 0) continue;  // EINTR
      if (watched[0].revents != 0) copy_from_guest();
      if (watched[1].revents != 0) copy_from_user();
    }
  }

 private:
  void copy_from_guest() {
    std::array<std::byte, kChunk> buffer;
    const auto got = ::recv(fd_.number(), buffer.data(), buffer.size(), 0);
    if (got <= 0) {
      from_guest_ = false;
      return;
    }
    print(BytesView(buffer).first(static_cast<std::size_t>(got)));
  }

  void copy_from_user() {
    std::array<std::byte, kChunk> buffer;
    const auto got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) {
      from_user_ = false;
      ::shutdown(fd_.number(), SHUT_WR);
      return;
    }
    BytesView typed = BytesView(buffer).first(static_cast<std::size_t>(got));
    const auto leave = escape_ ? std::ranges::find(typed, kLeave) : typed.end();
    if (leave != typed.end()) from_guest_ = false;
    if (!send_all(fd_, {typed.begin(), leave})) from_guest_ = false;
  }

  os::Fd fd_;
  std::ostream& out_;
  bool escape_;
  bool from_guest_ = true;
  bool from_user_ = true;
};

}  // namespace

void attach_console(const Context& context, std::string_view path) {
  auto upgraded = context.client().upgrade(path, "console");
  if (!upgraded) throw Failure(ExitStatus::failed, upgraded.error().text);
  {
    const RawTerminal terminal;
    if (terminal.active()) context.io.err << "Connected; Ctrl-] leaves.\r\n" << std::flush;
    Console console(std::move(upgraded->fd), context.io.out, terminal.active());
    console.print(upgraded->early);
    console.run();
  }
  context.io.err << '\n';
}

}  // namespace godwit::cli

#include "cli/console.hh"

#include <poll.h>
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

class Console final {
 public:
  Console(std::unique_ptr<http::Channel> channel, std::ostream& out, bool escape)
      : channel_(std::move(channel)), out_(out), escape_(escape) {}

  void print(BytesView bytes) { out_ << as_text(bytes) << std::flush; }

  void run() {
    copy_from_guest();  // what came with the answer
    while (from_guest_) {
      std::array<pollfd, 2> watched = {
          pollfd{.fd = channel_->fd().number(), .events = POLLIN, .revents = 0},
          pollfd{.fd = from_user_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}};
      if (::poll(watched.data(), watched.size(), -1) < 0) continue;  // EINTR
      if (watched[0].revents != 0) copy_from_guest();
      if (watched[1].revents != 0) copy_from_user();
    }
  }

 private:
  void copy_from_guest() {
    std::array<std::byte, kChunk> buffer;
    while (const std::size_t got = channel_->receive(buffer)) {
      print(BytesView(buffer).first(got));
    }
    if (channel_->ended()) from_guest_ = false;
  }

  void copy_from_user() {
    std::array<std::byte, kChunk> buffer;
    const auto got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got <= 0) {
      from_user_ = false;
      channel_->finish();
      return;
    }
    BytesView typed = BytesView(buffer).first(static_cast<std::size_t>(got));
    const auto leave = escape_ ? std::ranges::find(typed, kLeave) : typed.end();
    if (leave != typed.end()) from_guest_ = false;
    if (!channel_->send({typed.begin(), leave})) from_guest_ = false;
  }

  std::unique_ptr<http::Channel> channel_;
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
    Console console(std::move(upgraded->channel), context.io.out, terminal.active());
    console.print(upgraded->early);
    console.run();
  }
  context.io.err << '\n';
}

}  // namespace godwit::cli

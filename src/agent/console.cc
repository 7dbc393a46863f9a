#include "agent/console.hh"

#include "os/socket.hh"
#include "session/splice.hh"

namespace godwit::agent {

void open_console(os::Loop& loop, const std::string& socket_path, http::Responder responder) {
  responder.upgrade("console", [&loop, socket_path](std::unique_ptr<os::ByteStream> client) {
    // The splice owns both streams and itself, until both directions have ended.
    auto self = std::make_shared<std::unique_ptr<session::Splice>>();
    *self = std::make_unique<session::Splice>(
        loop, std::move(client), os::unix_connect(loop, socket_path), [](BytesView) {},
        [&loop, self](const std::string&) { loop.post([self] { self->reset(); }); });
  });
}

}  // namespace godwit::agent

#include "memory_server.hh"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "base/check.hh"

namespace godwit::nbd {
namespace {

bool is_ready(int fd, short events, int wait) {
  pollfd polled{.fd = fd, .events = events, .revents = 0};
  CHECK(::poll(&polled, 1, wait) >= 0);
  return polled.revents != 0;
}

}  // namespace

MemoryServer::MemoryServer(std::string path, std::vector<Export> exports)
    : path_(std::move(path)),
      exports_(std::move(exports)),
      listener_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      stop_(::eventfd(0, EFD_CLOEXEC)) {
  for (const Export& each : exports_) disks_.emplace_back(each.size.bytes);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path_.size() < sizeof(address.sun_path), "{}", path_);
  std::ranges::copy(path_, address.sun_path);
  CHECK(::bind(listener_.number(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  CHECK(::listen(listener_.number(), 8) == 0);
  thread_ = std::thread([this] { serve(); });
}

MemoryServer::~MemoryServer() {
  CHECK(::eventfd_write(stop_.number(), 1) == 0);
  thread_.join();
}

// One connection after the other: none of the clients has two that depend on each other.
void MemoryServer::serve() {
  while (true) {
    pollfd polled[] = {{listener_.number(), POLLIN, 0}, {stop_.number(), POLLIN, 0}};
    CHECK(::poll(polled, 2, -1) > 0);
    if (polled[1].revents != 0) return;
    serve_one(os::Fd(::accept4(listener_.number(), nullptr, nullptr, SOCK_CLOEXEC)));
  }
}

void MemoryServer::serve_one(const os::Fd& socket) {
  {
    const std::lock_guard lock(mutex_);
    is_serving_ = true;
  }
  Connection connection(exports_);
  std::vector<std::pair<Request, Bytes>> done;  // with what was read
  std::size_t most = 0;
  bool alive = true;
  while (alive && !connection.failed() && !connection.finished()) {
    while (const auto request = connection.next()) {
      Bytes& disk = disks_.at(static_cast<std::size_t>(
          std::ranges::find(exports_, *connection.chosen()) - exports_.begin()));
      carry_out(*request, disk);
      const auto from = disk.begin() + static_cast<std::ptrdiff_t>(request->offset);
      done.emplace_back(*request, request->command == Command::kRead
                                      ? Bytes(from, from + request->length)
                                      : Bytes());
    }
    most = std::max(most, connection.outstanding());
    const bool has_room = !connection.room().empty();
    if (!done.empty() && !(has_room && is_ready(socket.number(), POLLIN, 0))) {
      const auto [request, data] = std::move(done.back());
      done.pop_back();
      if (request.command == Command::kRead) {
        connection.reply_read(request.id, data);
      } else {
        connection.reply(request.id);
      }
      continue;
    }
    if (const BytesView out = connection.peek(); !out.empty()) {
      const ssize_t sent = ::send(socket.number(), out.data(), out.size(), MSG_NOSIGNAL);
      alive = sent > 0;
      if (alive) connection.advance(static_cast<std::size_t>(sent));
    } else if (!connection.finished()) {
      const MutableBytes room = connection.room();
      const ssize_t got = ::read(socket.number(), room.data(), room.size());
      alive = got > 0;
      if (alive) connection.commit(static_cast<std::size_t>(got));
    }
  }
  const std::lock_guard lock(mutex_);
  ++counts_.connections;
  counts_.most_outstanding = std::max(counts_.most_outstanding, most);
  if (connection.failed()) ++counts_.failed, counts_.failure = connection.failed()->text;
  is_serving_ = false;
  idle_.notify_all();
}

void MemoryServer::carry_out(const Request& request, Bytes& disk) {
  std::byte* const at = disk.data() + request.offset;
  const std::lock_guard lock(mutex_);
  if ((request.flags & kFua) != 0) ++counts_.fua;
  if ((request.flags & kNoHole) != 0) ++counts_.no_hole;
  if ((request.flags & kFastZero) != 0) ++counts_.fast_zero;
  switch (request.command) {
    case Command::kRead:
      ++counts_.reads;
      break;
    case Command::kWrite:
      ++counts_.writes;
      std::memcpy(at, request.payload.data(), request.length);
      break;
    case Command::kFlush:
      ++counts_.flushes;
      break;
    case Command::kTrim:
      ++counts_.trims;
      std::memset(at, 0, request.length);
      break;
    case Command::kWriteZeroes:
      ++counts_.zeroes;
      std::memset(at, 0, request.length);
      break;
    case Command::kDisconnect:
      break;
  }
}

MemoryServer::Counts MemoryServer::counts() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return !is_serving_; });
  return counts_;
}

}  // namespace godwit::nbd

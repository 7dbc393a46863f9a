#include "qemu/block_client.hh"

#include <libnbd.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cstring>

namespace godwit::qemu {
namespace {

constexpr const char* kAllocationDepth = "qemu:allocation-depth";
constexpr std::uint32_t kOwnDepth = 1;
constexpr const char* kDirtyBitmap = "qemu:dirty-bitmap:";
constexpr std::uint32_t kDirty = 1;

// What one metadata context says: so many bytes are of this kind.
struct Entry {
  std::uint64_t length = 0;
  std::uint32_t value = 0;
};

std::vector<BlockClient::Part> merge(const std::vector<Entry>& allocation,
                                     const std::vector<Entry>& depth, std::uint64_t most) {
  std::vector<BlockClient::Part> parts;
  std::size_t a = 0, d = 0;
  std::uint64_t a_done = 0, d_done = 0, total = 0;
  while (a < allocation.size() && d < depth.size() && total < most) {
    const std::uint64_t length =
        std::min({allocation[a].length - a_done, depth[d].length - d_done, most - total});
    parts.push_back({.length = length,
                     .zero = (allocation[a].value & LIBNBD_STATE_ZERO) != 0,
                     .own = depth[d].value == kOwnDepth});
    total += length;
    a_done += length;
    d_done += length;
    if (a_done == allocation[a].length) ++a, a_done = 0;
    if (d_done == depth[d].length) ++d, d_done = 0;
  }
  return parts;
}

std::vector<BlockClient::Part> dirty_parts(const std::vector<Entry>& bitmap, std::uint64_t most) {
  std::vector<BlockClient::Part> parts;
  for (std::uint64_t total = 0; const Entry& each : bitmap) {
    const std::uint64_t length = std::min(each.length, most - total);
    if (length == 0) break;
    parts.push_back({.length = length, .dirty = (each.value & kDirty) != 0});
    total += length;
  }
  return parts;
}

}  // namespace

// Lives as long as libnbd may call back.
struct BlockClient::Call {
  BlockClient* client;
  std::weak_ptr<bool> alive;
  Done done;

  static nbd_completion_callback callback(const std::shared_ptr<Call>& call) {
    return {.callback =
                [](void* data, int* error) {
                  const auto& self = *static_cast<std::shared_ptr<Call>*>(data);
                  if (!self->alive.expired()) {
                    self->client->settle(self, *error == 0 ? "" : std::strerror(*error));
                  }
                  return 1;  // libnbd forgets the command
                },
            .user_data = new std::shared_ptr<Call>(call),
            .free = [](void* data) { delete static_cast<std::shared_ptr<Call>*>(data); }};
  }
};

struct BlockClient::StatusCall {
  std::vector<Entry> allocation, depth;

  static nbd_extent_callback callback(const std::shared_ptr<StatusCall>& call) {
    return {.callback =
                [](void* data, const char* context, std::uint64_t, std::uint32_t* entries,
                   std::size_t count, int*) {
                  const auto& self = *static_cast<std::shared_ptr<StatusCall>*>(data);
                  auto& list =
                      std::strcmp(context, kAllocationDepth) == 0 ? self->depth : self->allocation;
                  for (std::size_t i = 0; i + 1 < count; i += 2) {
                    list.push_back({.length = entries[i], .value = entries[i + 1]});
                  }
                  return 0;
                },
            .user_data = new std::shared_ptr<StatusCall>(call),
            .free = [](void* data) { delete static_cast<std::shared_ptr<StatusCall>*>(data); }};
  }
};

BlockClient::BlockClient(os::Loop& loop, const std::string& socket, std::string export_name,
                         Done ready, const std::optional<std::string>& bitmap)
    : loop_(loop),
      socket_(socket),
      export_(std::move(export_name)),
      tells_dirty_(bitmap.has_value()),
      ready_(std::move(ready)),
      handle_(nbd_create()) {
  std::vector<std::string> contexts{LIBNBD_CONTEXT_BASE_ALLOCATION, kAllocationDepth};
  if (bitmap) contexts = {kDirtyBitmap + *bitmap};
  const bool begun =
      handle_ != nullptr &&  //
      nbd_set_export_name(handle_, export_.c_str()) == 0 &&
      std::ranges::all_of(contexts,
                          [this](const auto& context) {
                            return nbd_add_meta_context(handle_, context.c_str()) == 0;
                          }) &&
      nbd_aio_connect_unix(handle_, socket.c_str()) == 0;
  const int fd = begun ? nbd_aio_get_fd(handle_) : -1;
  if (fd < 0) {
    loop_.post([this, alive = std::weak_ptr(alive_), why = std::string(nbd_get_error())] {
      if (!alive.expired()) std::exchange(ready_, nullptr)(fail("{}: {}", socket_, why));
    });
    return;
  }
  fd_ = os::Fd(::dup(fd));
  watch_ = loop_.watch(fd_, EPOLLIN, [this](std::uint32_t events) { drive(events); });
  arm();
}

BlockClient::~BlockClient() {
  watch_.reset();
  alive_.reset();
  if (handle_ != nullptr) nbd_close(handle_);
}

void BlockClient::drive(std::uint32_t events) {
  const std::weak_ptr alive(alive_);
  const unsigned wants = nbd_aio_get_direction(handle_);
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && (wants & LIBNBD_AIO_DIRECTION_READ) != 0) {
    nbd_aio_notify_read(handle_);
  } else if ((events & EPOLLOUT) != 0 && (wants & LIBNBD_AIO_DIRECTION_WRITE) != 0) {
    nbd_aio_notify_write(handle_);
  }
  maybe_ready();
  if (!alive.expired()) arm();
}

void BlockClient::maybe_ready() {
  if (!ready_) return;
  if (nbd_aio_is_ready(handle_) > 0) {
    const std::int64_t size = nbd_get_size(handle_);
    size_ = {static_cast<std::uint64_t>(std::max<std::int64_t>(size, 0))};
    return std::exchange(ready_, nullptr)({});
  }
  if (nbd_aio_is_dead(handle_) > 0 || nbd_aio_is_closed(handle_) > 0) {
    std::exchange(ready_, nullptr)(fail("{}: the disk {} is not served", socket_, export_));
  }
}

void BlockClient::arm() {
  if (nbd_aio_is_dead(handle_) > 0 || nbd_aio_is_closed(handle_) > 0) return watch_.reset();
  const unsigned wants = nbd_aio_get_direction(handle_);
  watch_.set_events(((wants & LIBNBD_AIO_DIRECTION_READ) != 0 ? EPOLLIN : 0U) |
                    ((wants & LIBNBD_AIO_DIRECTION_WRITE) != 0 ? EPOLLOUT : 0U));
}

std::shared_ptr<BlockClient::Call> BlockClient::begin(Done done) {
  return std::make_shared<Call>(
      Call{.client = this, .alive = std::weak_ptr(alive_), .done = std::move(done)});
}

void BlockClient::issued(const std::shared_ptr<Call>& call, std::int64_t cookie) {
  if (cookie < 0) return settle(call, nbd_get_error());
  arm();
}

void BlockClient::settle(const std::shared_ptr<Call>& call, const std::string& error) {
  loop_.post([call, error, name = export_] {
    if (call->alive.expired() || !call->done) return;
    std::exchange(call->done,
                  nullptr)(error.empty() ? Result<>{} : fail("disk {}: {}", name, error));
  });
}

void BlockClient::read(std::uint64_t offset, MutableBytes into, Done done) {
  const auto call = begin(std::move(done));
  issued(call, nbd_aio_pread(handle_, into.data(), into.size(), offset, Call::callback(call), 0));
}

void BlockClient::write(std::uint64_t offset, BytesView data, Done done) {
  const auto call = begin(std::move(done));
  issued(call, nbd_aio_pwrite(handle_, data.data(), data.size(), offset, Call::callback(call), 0));
}

void BlockClient::zero(std::uint64_t offset, std::uint64_t length, Done done) {
  const auto call = begin(std::move(done));
  issued(call, nbd_aio_zero(handle_, length, offset, Call::callback(call), 0));
}

void BlockClient::flush(Done done) {
  const auto call = begin(std::move(done));
  issued(call, nbd_aio_flush(handle_, Call::callback(call), 0));
}

void BlockClient::status(std::uint64_t offset, std::uint64_t length, Parts parts) {
  auto told = std::make_shared<StatusCall>();
  const auto call = begin(
      [told, length, tells_dirty = tells_dirty_, parts = std::move(parts)](Result<> done) mutable {
        if (!done) return parts(std::unexpected(done.error()));
        if (tells_dirty) return parts(dirty_parts(told->allocation, length));
        parts(merge(told->allocation, told->depth, length));
      });
  issued(call, nbd_aio_block_status(handle_, length, offset, StatusCall::callback(told),
                                    Call::callback(call), 0));
}

}  // namespace godwit::qemu

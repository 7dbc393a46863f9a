#include "agent/disk_target.hh"

#include <spdlog/spdlog.h>

#include "qemu/launch.hh"

namespace godwit::agent {

DiskTarget::DiskTarget(os::Loop& loop, qemu::VmSpec vm, std::vector<qemu::DiskPaths> paths,
                       Seeds seeds, std::shared_ptr<const Elsewhere> elsewhere, TransferLink& link,
                       Events events)
    : loop_(loop),
      vm_(std::move(vm)),
      paths_(std::move(paths)),
      wanted_(seeds),
      elsewhere_(std::move(elsewhere)),
      link_(link),
      events_(std::move(events)),
      inbound_(qemu::sizes_of(vm_.disks), *this),
      unpacker_(loop, [this](const Result<Bytes>& records) { came(records); }) {
  link_.use_disks({.bytes = [this](BytesView coded) { return take(coded); },
                   .room =
                       [this] {
                         if (seeds_) seeds_->room();
                       }});
}

DiskTarget::~DiskTarget() { link_.use_disks({}); }

void DiskTarget::fail_with(const std::string& why) {
  if (std::exchange(failed_, true)) return;
  // It may be one of our parts that tells us.
  loop_.post([this, why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) events_.failed(fmt::format("disks of vm {}: {}", vm_.name, why));
  });
}

void DiskTarget::start(const std::filesystem::path& directory) {
  const auto socket = qemu::place_for_socket(directory);
  if (!socket) return fail_with(socket.error().text);
  try {
    daemon_ = std::make_unique<qemu::StorageDaemon>(
        loop_, vm_.disks, paths_, *socket, [this](const std::string& why) { fail_with(why); });
  } catch (const SetupError& error) {
    return fail_with(error.what());
  }
  if (elsewhere_) reader_.emplace(loop_, elsewhere_, directory);
  served_.socket = socket->string();
  for (std::size_t i = 0; i < vm_.disks.size(); ++i) served_.exports.push_back(qemu::disk_node(i));
  connect_clients();
}

void DiskTarget::connect_clients() {
  for (std::size_t i = 0; i < vm_.disks.size(); ++i) {
    clients_.push_back(std::make_unique<qemu::BlockClient>(
        loop_, served_.socket, served_.exports[i], [this, i](const Result<>& done) {
          if (!done) return not_served(done.error().text);
          const qemu::DiskSpec& disk = vm_.disks[i];
          if (clients_[i]->size() != disk.size) {
            return fail_with(fmt::format("{} has {} instead of {} bytes", disk.name,
                                         clients_[i]->size().bytes, disk.size.bytes));
          }
          if (++connected_ < clients_.size()) return;
          ready_ = true;
          events_.ready();
          if (wanted_ == Seeds::all) {
            seeds_.emplace(clients_, vm_.disks, elsewhere_.get(), link_,
                           [this](const std::string& why) { fail_with(why); });
          }
          if (std::exchange(took_less_, false)) link_.take_disks();
        }));
  }
}

// It may have ended, and said why.
void DiskTarget::not_served(const std::string& why) {
  if (!daemon_) return fail_with(why);
  daemon_->stop(
      [this, why](const Result<>& ended) { fail_with(ended ? why : ended.error().text); });
}

// From within the transfer.
std::size_t DiskTarget::take(BytesView coded) {
  if (failed_) return coded.size();
  const bool has_room = ready_ && !inbound_.is_behind();
  const std::size_t taken = has_room ? unpacker_.take(coded) : 0;
  took_less_ = taken < coded.size();
  if (clients_.empty() && !served_.socket.empty() && !closing_) {
    loop_.post([this, alive = std::weak_ptr(alive_)] {
      if (!alive.expired() && clients_.empty()) connect_clients();
    });
  }
  return taken;
}

void DiskTarget::came(const Result<Bytes>& records) {
  if (failed_) return;
  if (!records) return fail_with(records.error().text);
  if (const auto good = inbound_.push(*records); !good) return fail_with(good.error().text);
  if (!inbound_.is_behind() && std::exchange(took_less_, false)) link_.take_disks();
}

qemu::BlockClient::Done DiskTarget::when_done(std::uint64_t number) {
  return [this, number](const Result<>& done) {
    if (failed_) return;
    if (!done) return fail_with(done.error().text);
    made(number);
  };
}

void DiskTarget::write(std::uint64_t number, std::uint8_t disk, std::uint64_t offset,
                       BytesView data) {
  clients_[disk]->write(offset, data, when_done(number));
}

void DiskTarget::zero(std::uint64_t number, std::uint8_t disk, disk::Extent extent) {
  clients_[disk]->zero(extent.offset, extent.length, when_done(number));
}

// Only what has this digest as it is read is written.
void DiskTarget::copy(std::uint64_t number, std::uint8_t disk, disk::Extent extent,
                      const disk::Digest& digest) {
  const auto came = [this, number, disk, offset = extent.offset](const Result<Bytes>& bytes) {
    if (failed_) return;
    if (!bytes) return not_there(number);
    const auto data = std::make_shared<const Bytes>(*bytes);
    clients_[disk]->write(
        offset, *data,
        [data, done = when_done(number)](const Result<>& result) mutable { done(result); });
  };
  if (reader_) return reader_->read(digest, extent.length, came);
  loop_.post([came, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) came(fail("this host has told of nothing"));
  });
}

// The source hears of it before it hears that the record is behind us.
void DiskTarget::not_there(std::uint64_t number) {
  Writer(ack_).u64(disk::kNotThere | number);
  made(number);
}

void DiskTarget::flush(std::uint64_t number) {
  const auto left = std::make_shared<std::size_t>(clients_.size());
  for (const auto& client : clients_) {
    client->flush([this, left, number](const Result<>& done) {
      if (failed_) return;
      if (!done) return fail_with(done.error().text);
      if (--*left == 0) made(number);
    });
  }
}

void DiskTarget::made(std::uint64_t number) {
  inbound_.done(number);
  if (inbound_.ended()) return close();
  acknowledge();
  if (!inbound_.is_behind() && std::exchange(took_less_, false)) link_.take_disks();
}

// QEMU's guest may have its disks for itself before the source hears of the end.
void DiskTarget::close() {
  if (std::exchange(closing_, true)) return;
  // One of them is telling us.
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    clients_.clear();
    reader_.reset();
    daemon_->stop([this](const Result<>& done) {
      if (!done) return fail_with(done.error().text);
      closed_ = true;
      if (events_.closed) events_.closed();
      acknowledge();
    });
  });
}

// Once for all that are made in one round of the loop.
void DiskTarget::acknowledge() {
  if (std::exchange(acknowledging_, true)) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (alive.expired()) return;
    acknowledging_ = false;
    if (failed_ || (closing_ && !closed_)) return;
    if (inbound_.made() != std::exchange(acknowledged_, inbound_.made())) {
      Writer(ack_).u64(inbound_.made());
    }
    const std::size_t taken = link_.offer_disks(ack_);
    ack_.erase(ack_.begin(), ack_.begin() + static_cast<std::ptrdiff_t>(taken));
    if (closed_ && ack_.empty()) link_.end_disks();
  });
}

}  // namespace godwit::agent

#include "agent/libvirt_passage.hh"

#include <sys/stat.h>

#include "agent/paced_socket.hh"

namespace godwit::agent {

LibvirtPassage::LibvirtPassage(os::Loop& loop, Peers& peers, const LibvirtSourceRecord& record,
                               LibvirtSockets sockets, const std::optional<codec::Settings>& codec,
                               Events events)
    : sockets_(std::move(sockets)), events_(std::move(events)) {
  const SourceRecord& move = record.move;
  const auto exports = exports_of(record.domain);
  if (auto made = make_directory(sockets_); !made) fail_setup("{}", made.error().text);
  std::optional<TransferLink::Coding> coding;
  if (codec) coding = {.settings = *codec};
  link_ = std::make_unique<TransferLink>(
      loop, stream::TransferId::from(move.id.bytes), stream::Role::kSource,
      exports.empty() ? TransferLink::Disks::none : TransferLink::Disks::some, std::move(coding),
      TransferLink::Events{.mark =
                               [this](const stream::QemuMark& mark) {
                                 if (events_.mark) events_.mark(mark);
                               },
                           .lane_lost = [this](stream::LaneNumber lane,
                                               const std::string&) { dialer_->dial_later(lane); },
                           .memory_verified = {},
                           .failed = [this](const std::string& why) { fail_with(why); }});
  if (move.bandwidth_bits_per_second != 0) {
    link_->set_bandwidth(BitRate{move.bandwidth_bits_per_second});
  }
  const std::size_t lanes = move.lanes != 0 ? move.lanes : lanes_to_fill_a_path();
  dialer_ = std::make_unique<LaneDialer>(
      loop, peers, move.to, lanes,
      LaneDialer::Events{.opened = [this, lanes](stream::LaneNumber number, auto lane) {
        link_->use_lane(number, std::move(lane), {}, lanes);
      }});
  if (!exports.empty()) {
    mirror_ = std::make_unique<MirrorSource>(loop, sockets_.disks.string(), exports, *link_,
                                             [this](const std::string& why) { fail_with(why); });
    // libvirt runs its QEMU as whom it likes; the directory's name is the secret.
    ::chmod(sockets_.disks.c_str(), 0666);
  }
  memory_ =
      os::Listener::unix_(loop, sockets_.memory.string(), 0666,
                          [this](auto stream, const auto&) { take_memory(std::move(stream)); });
  tunnel_ = std::make_unique<TunnelEntry>(loop, peers, move.to, tunnel_of(move.id),
                                          sockets_.control.string());
  dialer_->dial();
}

LibvirtPassage::~LibvirtPassage() {
  std::error_code ignored;
  std::filesystem::remove_all(sockets_.directory, ignored);
}

// The disks are copied by now. What was answered early is there before memory is.
void LibvirtPassage::take_memory(std::unique_ptr<os::ByteStream> qemu) {
  if (events_.memory_begins) events_.memory_begins();
  if (!mirror_) return link_->use_qemu(std::move(qemu));
  mirror_->keep_in_step([this, qemu = std::make_shared<std::unique_ptr<os::ByteStream>>(
                                   std::move(qemu))] { link_->use_qemu(std::move(*qemu)); });
}

void LibvirtPassage::fail_with(const std::string& why) {
  if (events_.failed) events_.failed(why);
}

std::optional<std::uint64_t> LibvirtPassage::disk_bytes() const {
  return mirror_ ? std::optional(mirror_->sent_bytes()) : std::nullopt;
}

}  // namespace godwit::agent

#include "agent/mirror_source.hh"

#include <algorithm>

namespace godwit::agent {
namespace {

// Answered and not yet at the target: keeps a long fat path busy, and is what a FLUSH waits for.
constexpr std::uint64_t kLeastEarly = 1 << 20, kMostEarly = 32 << 20;
constexpr double kEarlySeconds = 0.5;  // of what the path carries
constexpr Nanoseconds kLook = milliseconds(500);
constexpr std::size_t kBatch = 1 << 20;  // of records, or what one turn of the loop brings

}  // namespace

MirrorSource::MirrorSource(os::Loop& loop, const std::string& socket,
                           std::vector<nbd::Export> disks, TransferLink& link,
                           std::function<void(std::string)> failed)
    : loop_(loop),
      link_(link),
      failed_(std::move(failed)),
      packer_(loop, [this] { offer(); }),
      tap_(loop, socket, std::move(disks),
           {.write = [this](const DiskTap::Write& write) { written(write); }, .lost = {}}) {
  link_.use_disks({.bytes = [this](BytesView acks) { return take(acks); },
                   .seeds = [](BytesView parts) { return parts.size(); },
                   .room = [this] { offer(); }});
  look();
}

MirrorSource::~MirrorSource() { link_.use_disks({}); }

void MirrorSource::written(const DiskTap::Write& write) {
  const nbd::Request& request = write.request;
  disk::Record record{.disk = static_cast<std::uint8_t>(write.disk),
                      .extent = {.offset = request.offset, .length = request.length}};
  switch (request.command) {
    case nbd::Command::kWrite:
      record.kind = disk::RecordKind::kWrite;
      record.data = request.payload;
      add(record);
      break;
    case nbd::Command::kFlush:
      add({.kind = disk::RecordKind::kFlush});
      break;
    default:  // WRITE_ZEROES, and TRIM, behind which a mirror expects nothing else
      record.kind = disk::RecordKind::kZero;
      for (std::uint64_t left = request.length; left > 0; left -= record.extent.length) {
        record.extent.offset = request.offset + request.length - left;
        record.extent.length = std::min<std::uint64_t>(left, disk::kMaxRecordLength);
        add(record);
      }
  }
  const bool is_durable = (request.flags & nbd::kFua) != 0;
  if (is_durable) add({.kind = disk::RecordKind::kFlush});
  if (waiting_.empty()) progress_ = loop_.now();
  waiting_.push_back({.record = sent_,
                      .request = write.number,
                      .bytes = request.payload.size(),
                      .may_be_early = !is_durable && request.command != nbd::Command::kFlush});
  answer_early();
}

void MirrorSource::answer_early() {
  for (Waiting& each : waiting_) {
    if (!early_ || early_bytes_ >= most_early_) return;
    if (each.is_answered || !each.may_be_early) continue;
    each.is_answered = true;
    early_bytes_ += each.bytes;
    tap_.answer(each.request);
  }
}

void MirrorSource::keep_in_step(std::function<void()> in_step) {
  early_ = false;
  in_step_ = std::move(in_step);
  in_step_at_ = sent_;
  answer();
}

// The guest may be what waits.
void MirrorSource::look() {
  const bool one_waits = !std::ranges::all_of(waiting_, &Waiting::is_answered);
  if (one_waits && loop_.now() - progress_ > kPatience) {
    return failed_(fmt::format("the target has made no write of the disks for {}: the link is cut",
                               to_text(kPatience)));
  }
  const auto carried = link_.path_rate().bytes_per_second() * kEarlySeconds;
  most_early_ = std::clamp(static_cast<std::uint64_t>(carried), kLeastEarly, kMostEarly);
  look_timer_ = loop_.after(kLook, [this] { look(); });
}

void MirrorSource::add(const disk::Record& record) {
  append(record, records_);
  ++sent_;
  if (records_.size() >= kBatch) return pack();
  if (std::exchange(packs_, true)) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) pack();
  });
}

void MirrorSource::pack() {
  packs_ = false;
  if (!records_.empty()) packer_.push(std::exchange(records_, {}));
}

// The link says that it has room from within.
void MirrorSource::offer() {
  if (std::exchange(offering_, true)) return;
  packer_.adapt(link_.unsent_of_disks() > 0);
  for (std::size_t taken = 1; taken > 0 && !packer_.coded().empty();) {
    taken = link_.offer_disks(packer_.coded());
    packer_.took(taken);
  }
  offering_ = false;
}

// Not from within the transfer.
std::size_t MirrorSource::take(BytesView acknowledgements) {
  append(ack_, acknowledgements);
  const std::size_t whole = ack_.size() / disk::kAckBytes * disk::kAckBytes;
  if (whole == 0) return acknowledgements.size();
  acked_ = from_big_endian<std::uint64_t>(ack_.data() + whole - disk::kAckBytes);
  ack_.erase(ack_.begin(), ack_.begin() + static_cast<std::ptrdiff_t>(whole));
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) answer();
  });
  return acknowledgements.size();
}

void MirrorSource::answer() {
  if (acked_ > sent_) return failed_("the target acknowledges what is not");
  while (!waiting_.empty() && waiting_.front().record <= acked_) {
    const Waiting made = waiting_.front();
    waiting_.pop_front();
    progress_ = loop_.now();
    if (made.is_answered) early_bytes_ -= made.bytes;
    if (!made.is_answered) tap_.answer(made.request);
  }
  answer_early();
  if (in_step_ && acked_ >= in_step_at_) std::exchange(in_step_, {})();
}

}  // namespace godwit::agent

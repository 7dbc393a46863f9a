#include "stream/transfer.hh"

#include <algorithm>

#include "base/check.hh"
#include "stream/transfer_parts.hh"

namespace godwit::stream {

std::vector<StreamSpec> vm_streams() {
  return {
      {kMemoryStream, Role::kSource, Priority::kMemory, kMemoryWindow, kUnsentLimit},
      {kReturnPathStream, Role::kTarget, Priority::kReturnPath, kReturnPathWindow,
       kReturnPathWindow},
  };
}

std::vector<StreamSpec> compact_vm_streams() {
  std::vector<StreamSpec> streams = vm_streams();
  streams.push_back({kKnownStream, Role::kTarget, Priority::kMemory, kKnownWindow, kKnownWindow});
  return streams;
}

std::vector<StreamSpec> disk_streams() {
  return {{kDiskStream, Role::kSource, Priority::kMemory, kDiskWindow, kUnsentLimit},
          {kDiskAckStream, Role::kTarget, Priority::kReturnPath, kDiskAckWindow, kDiskAckWindow},
          {kDiskSeedStream, Role::kTarget, Priority::kMemory, kDiskSeedWindow, kDiskSeedWindow}};
}

Transfer::Transfer(TransferConfig config, TransferSink& sink, Instant now)
    : config_(std::move(config)), sink_(sink), alone_since_(now) {
  CHECK(config_.streams.size() <= kMaxStreams);
  for (const StreamSpec& spec : config_.streams) {
    if (spec.writer == config_.role) {
      outs_.push_back(std::make_unique<Out>(spec));
    } else {
      ins_.push_back(std::make_unique<In>(spec));
    }
  }
}

Transfer::~Transfer() = default;

Transfer::Out& Transfer::out(StreamId stream) const {
  const auto found = std::ranges::find_if(outs_, [&](auto& o) { return o->spec.id == stream; });
  CHECK(found != outs_.end(), "stream {} is not written by this side", stream);
  return **found;
}

Transfer::In* Transfer::find_in(StreamId stream) {
  const auto found = std::ranges::find_if(ins_, [&](auto& i) { return i->spec.id == stream; });
  return found == ins_.end() ? nullptr : found->get();
}

MutableBytes Transfer::space(StreamId stream) {
  if (failed_) return {};
  Out& writer = out(stream);
  return writer.stream.space(keep_from(writer));
}

// What a lane is about to take stays, though it may have arrived by another before that one died.
std::uint64_t Transfer::keep_from(const Out& out) const {
  std::uint64_t from = UINT64_MAX;
  for (const auto& lane : lanes_) {
    if (lane && lane->payload.left > 0 && lane->payload.out == &out) {
      from = std::min(from, lane->payload.position);
    }
  }
  return from;
}

void Transfer::commit(StreamId stream, std::size_t count) { out(stream).stream.commit(count); }

std::size_t Transfer::offer(StreamId stream, BytesView bytes) {
  std::size_t taken = 0;
  while (taken < bytes.size()) {
    const MutableBytes room = space(stream);
    if (room.empty()) break;
    const std::size_t count = std::min(room.size(), bytes.size() - taken);
    std::memcpy(room.data(), bytes.data() + taken, count);
    commit(stream, count);
    taken += count;
  }
  return taken;
}

void Transfer::end(StreamId stream) { out(stream).stream.end(); }

void Transfer::set_priority(StreamId stream, Priority priority) {
  out(stream).spec.priority = priority;
}

void Transfer::set_bandwidth(std::optional<BitRate> cap, Instant now) {
  bucket_.set_rate(cap, now);
}

void Transfer::lane_up(LaneNumber number, Instant now) {
  lane_down(number, now);
  Lane& lane = *(lanes_[number] = std::make_unique<Lane>());
  lane.last_heard = now;
  for (const auto& out : outs_) lane.acked_before.push_back(out->stream.acked());
  ++lanes_used_;
  append_hello(number);
}

void Transfer::lane_down(LaneNumber number, Instant now) {
  if (!has_lane(number)) return;
  for (const Lane::Sent& sent : lanes_[number]->sent) {
    if (sent.is_end()) {
      sent.out->stream.end_lost();
    } else {
      sent.out->stream.lost(sent.from, sent.to);
    }
  }
  lanes_[number].reset();
  alone_since_ = now;
  for (auto& in : ins_) {  // the last ACK may have been on it
    in->ack_due.reset();
    if (!has_lane()) continue;
    in->ack_due = now;
    in->told_end = false;
  }
}

bool Transfer::has_lane() const {
  return std::ranges::any_of(lanes_, [](const auto& lane) { return lane != nullptr; });
}

Instant Transfer::last_heard(LaneNumber lane) const { return lanes_.at(lane)->last_heard; }

std::optional<LaneFault> Transfer::tick(Instant now) {
  rate_.pass(now, lane_limited());
  if (failed_) return std::nullopt;
  if (!has_lane() && now - alone_since_ >= config_.patience && !finished()) {
    give_up({fmt::format("transfer {}: no connection to the peer for {}", config_.id.text(),
                         to_text(config_.patience))},
            false);
  }
  for (LaneNumber lane = 0; lane < kMaxLanes; ++lane) {
    if (has_lane(lane) && now - last_heard(lane) >= kLaneSilence) {
      return lane_fault(lane, now,
                        fmt::format("nothing heard for {}", to_text(Nanoseconds(kLaneSilence))));
    }
  }
  return std::nullopt;
}

Instant Transfer::next_tick() const {
  if (!has_lane()) return failed_ ? Instant::max() : alone_since_ + config_.patience;
  Instant next = Instant::max();
  bool greeted = false;
  for (const auto& lane : lanes_) {
    if (!lane) continue;
    next = std::min(next, lane->last_heard + kLaneSilence);
    if (!lane->greeted || failed_) continue;
    greeted = true;
    next = std::min(next, lane->last_ping + kPingInterval);
    if (lane->waits_for_tokens) next = std::min(next, bucket_.ready_at());
  }
  for (const auto& in : ins_) {
    if (greeted && in->ack_due) next = std::min(next, *in->ack_due);
  }
  return next;
}

void Transfer::abort(std::string why, Instant now) {
  rate_.pass(now, lane_limited());
  give_up({std::move(why)}, true);
}

void Transfer::give_up(Error why, bool tell_peer) {
  if (failed_) return;
  if (tell_peer) reset_ = why.text.substr(0, kMaxResetText);
  failed_ = why;
  sink_.transfer_failed(why);
}

bool Transfer::lane_limited() const {
  const bool has_data = std::ranges::any_of(outs_, [](auto& o) { return o->stream.has_data(); });
  return std::ranges::any_of(lanes_, [&](const auto& lane) {
    return lane && lane->greeted && (has_data || lane->payload.left > 0);
  });
}

bool Transfer::finished() const {
  const bool out_done = std::ranges::all_of(outs_, [](auto& o) { return o->stream.end_acked(); });
  const bool in_done =
      std::ranges::all_of(ins_, [](auto& i) { return i->stream.ended() && i->told_end; });
  const bool all_said = std::ranges::all_of(
      lanes_, [](const auto& lane) { return !lane || lane->small_taken == lane->small.size(); });
  return !failed_ && out_done && in_done && all_said;
}

TransferStats Transfer::stats() const {
  TransferStats stats;
  for (const auto& out : outs_) {
    const OutStream& stream = out->stream;
    stats.out[out->spec.id] = {stream.offered(), stream.sent(), stream.acked(), stream.resent()};
  }
  for (const auto& in : ins_) {
    stats.in[in->spec.id] = {in->stream.received(), in->stream.delivered()};
  }
  stats.lane_bytes_out = lane_bytes_out_;
  stats.lane_bytes_in = lane_bytes_in_;
  stats.lanes = lanes_used_;
  stats.lanes_up = static_cast<std::uint32_t>(
      std::ranges::count_if(lanes_, [](const auto& lane) { return lane && lane->greeted; }));
  stats.delivery_rate = rate_.rate();
  stats.lane_rtt = lane_rtt_;
  return stats;
}

}  // namespace godwit::stream

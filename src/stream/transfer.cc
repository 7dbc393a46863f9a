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

Transfer::Transfer(TransferConfig config, TransferSink& sink, Instant now)
    : config_(std::move(config)), sink_(sink), lane_changed_(now) {
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
  return failed_ ? MutableBytes{} : out(stream).stream.space();
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

void Transfer::lane_up(Instant now) {
  if (has_lane()) lane_down(now);
  lane_ = Lane::kGreeting;
  lane_changed_ = last_heard_ = now;
  ++lanes_;
  append_hello();
}

void Transfer::lane_down(Instant now) {
  if (!has_lane()) return;
  lane_ = Lane::kDown;
  lane_changed_ = now;
  reader_.reset();
  small_.clear();
  small_taken_ = 0;
  payload_ = {};
  pong_.reset();
  waits_for_tokens_ = false;
  for (auto& in : ins_) {
    in->stream.lane_died();
    in->ack_due.reset();
  }
}

Result<> Transfer::tick(Instant now) {
  rate_.pass(now, lane_limited());
  if (failed_) return {};
  if (!has_lane()) {
    if (now - lane_changed_ >= config_.patience && !finished()) {
      give_up({fmt::format("transfer {}: no connection to the peer for {}", config_.id.text(),
                           to_text(config_.patience))},
              false);
    }
    return {};
  }
  if (now - last_heard_ >= kLaneSilence) {
    return lane_fault(now, fmt::format("nothing heard for {}", to_text(Nanoseconds(kLaneSilence))));
  }
  return {};
}

Instant Transfer::next_tick() const {
  if (!has_lane()) return failed_ ? Instant::max() : lane_changed_ + config_.patience;
  Instant next = last_heard_ + kLaneSilence;
  if (lane_ != Lane::kUp || failed_) return next;
  next = std::min(next, last_ping_ + kPingInterval);
  for (const auto& in : ins_) {
    if (in->ack_due) next = std::min(next, *in->ack_due);
  }
  if (waits_for_tokens_) next = std::min(next, bucket_.ready_at());
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
  return lane_ == Lane::kUp && (payload_.left > 0 || std::ranges::any_of(outs_, [](auto& o) {
                                  return o->stream.has_data();
                                }));
}

bool Transfer::finished() const {
  const bool out_done = std::ranges::all_of(outs_, [](auto& o) { return o->stream.end_acked(); });
  const bool in_done =
      std::ranges::all_of(ins_, [](auto& i) { return i->stream.ended() && i->told_end; });
  return !failed_ && out_done && in_done && small_taken_ == small_.size();
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
  stats.lanes = lanes_;
  stats.delivery_rate = rate_.rate();
  stats.lane_rtt = lane_rtt_;
  return stats;
}

}  // namespace godwit::stream

#include "wire/opener.hh"

#include <algorithm>
#include <utility>

#include "base/check.hh"
#include "wire/salvage.hh"
#include "wire/vnet.hh"

namespace godwit::wire {

void OpenerCounters::add_to(Drops& drops) const {
  drops["malformed"] += malformed;
  drops["misdirected"] += misdirected;
  drops["replayed"] += replayed;
  drops["bad_tag"] += bad_tag;
  drops["no_buffer"] += no_buffer;
  drops["bad_vnet"] += bad_vnet;
  drops["incomplete"] += incomplete;
}

Opener::Opener(const LaneKey& key, FramePool& pool)
    : aead_(crypto::make_aead(key.algorithm, key.key, key.backend)),
      receiver_index_(key.receiver_index),
      epoch_(key.epoch),
      pool_(&pool) {
  partial_.reserve(kMaxPartialFrames);
}

Opener::~Opener() {
  if (pool_ == nullptr) return;
  for (PartialFrame& frame : partial_) pool_->give_back(std::move(frame.buffer));
}

void Opener::leave_pool() { std::exchange(pool_, nullptr)->lend(partial_.size()); }

void Opener::enter_pool(FramePool& pool) {
  pool_ = &pool;
  pool_->borrow(partial_.size());
}

bool Opener::open(MutableBytes datagram, Instant now, OpenerSink& sink) {
  const auto header = read_header(datagram);
  if (!header) return ++counters_.malformed, false;
  if (header->receiver_index != receiver_index_ || header->epoch != (epoch_ & 0xff)) {
    return ++counters_.misdirected, false;
  }
  if (!window_.is_fresh(header->counter)) return ++counters_.replayed, false;
  if (header->type == DatagramType::fragment) {
    if (!open_fragment(*header, datagram, now, sink)) return false;
  } else {
    const MutableBytes body = datagram.subspan(kHeaderBytes, datagram.size() - kDatagramOverhead);
    if (!decrypt(datagram, body)) return false;
    record(header->counter, now);
    if (header->type == DatagramType::bundle) {
      deliver_bundle(body, sink);
    } else {
      deliver_message(body, header->counter, sink);
    }
  }
  if (window_.end() >= next_overtaken_) salvage_overtaken(sink);
  return true;
}

bool Opener::decrypt(MutableBytes datagram, MutableBytes out) {
  if (aead_->open(nonce_of(datagram), make_aad(epoch_, datagram), datagram.subspan(kHeaderBytes),
                  out)) {
    return true;
  }
  ++counters_.bad_tag;
  return false;
}

void Opener::record(std::uint64_t counter, Instant now) {
  CHECK(window_.accept(counter), "counter {} was fresh before", counter);
  ++counters_.datagrams;
  last_arrival_ = std::max(last_arrival_, now);
  if (now - mark_time_ >= kReorderHorizon) {
    settled_ = mark_;
    mark_ = window_.end();
    mark_time_ = now;
  }
}

bool Opener::settled_below(std::uint64_t counter, Instant now) const {
  std::uint64_t settled = settled_;
  if (now - mark_time_ >= kReorderHorizon) settled = mark_;
  if (now - last_arrival_ >= kReorderHorizon) settled = window_.end();
  return window_.has_all_between(std::min(settled, counter), counter);
}

// ---- what a datagram carried ----------------------------------------------------------------

void Opener::deliver_bundle(BytesView body, OpenerSink& sink) {
  Reader reader(body);
  while (reader.remaining() >= 2) {
    const std::uint16_t size = reader.u16();
    if (size == 0) return;  // padding
    const BytesView frame = reader.bytes(size);
    if (!reader.ok()) {
      ++counters_.malformed;
      return;
    }
    deliver_frame(frame, sink);
  }
}

void Opener::deliver_message(BytesView body, std::uint64_t counter, OpenerSink& sink) {
  if (body.empty()) {
    ++counters_.malformed;
    return;
  }
  ++counters_.messages;
  sink.message(std::to_integer<std::uint8_t>(body[0]), body.subspan(1), counter);
}

void Opener::deliver_frame(BytesView frame, OpenerSink& sink) {
  if (!check_vnet(frame)) {
    ++counters_.bad_vnet;
    return;
  }
  ++counters_.frames;
  counters_.frame_bytes += frame.size() - kVnetBytes;
  sink.frame(frame);
}

// ---- reassembly -----------------------------------------------------------------------------

bool Opener::open_fragment(const DatagramHeader& header, MutableBytes datagram, Instant now,
                           OpenerSink& sink) {
  const std::size_t chunk = datagram.size() - kDatagramOverhead;
  if (chunk == 0 || chunk * header.count > kReassemblyBytes) {
    return ++counters_.malformed, false;
  }
  const MutableBytes body = datagram.subspan(kHeaderBytes, chunk);
  PartialFrame* frame = find(header.counter - header.index);
  if (frame != nullptr) {
    if (frame->count != header.count || frame->chunk != chunk) {
      return ++counters_.malformed, false;
    }
    // Straight into place: as the counter is fresh, nothing authentic lies there yet.
    if (!decrypt(datagram, frame->place(header.index))) return false;
    record(header.counter, now);
    arrived(*frame, header.index, now, sink);
    return true;
  }
  if (!decrypt(datagram, body)) return false;
  record(header.counter, now);
  if (header.count == 1) {
    deliver_frame(without_padding(body, chunk), sink);
    return true;
  }
  frame = start(header, chunk, sink);
  if (frame == nullptr) {
    ++counters_.no_buffer;
    return true;
  }
  std::copy(body.begin(), body.end(), frame->place(header.index).begin());
  arrived(*frame, header.index, now, sink);
  return true;
}

PartialFrame* Opener::find(std::uint64_t first_counter) {
  const auto at = std::ranges::find(partial_, first_counter, &PartialFrame::first_counter);
  return at == partial_.end() ? nullptr : &*at;
}

// Only for authentic fragments, since it may push out another frame.
PartialFrame* Opener::start(const DatagramHeader& header, std::size_t chunk, OpenerSink& sink) {
  const auto push_out_oldest = [&] {
    give_up(*std::ranges::min_element(partial_, {}, &PartialFrame::first_counter), sink);
  };
  if (partial_.size() == kMaxPartialFrames) push_out_oldest();
  auto buffer = pool_->take();
  if (!buffer && !partial_.empty()) {
    push_out_oldest();
    buffer = pool_->take();
  }
  if (!buffer) return nullptr;
  PartialFrame& frame = partial_.emplace_back();
  frame.first_counter = header.counter - header.index;
  frame.count = header.count;
  frame.chunk = chunk;
  frame.buffer = std::move(buffer);
  find_next_overtaken();
  return &frame;
}

void Opener::arrived(PartialFrame& frame, std::size_t index, Instant now, OpenerSink& sink) {
  frame.received |= FragmentSet{1} << index;
  frame.last_arrival = now;
  if (frame.is_complete() && frame.salvaged == 0) {
    deliver_frame(without_padding(frame.bytes(), frame.chunk), sink);
    release(frame);
    return;
  }
  if (frame.is_salvaging) salvage(frame, sink);
  if (frame.is_complete()) release(frame);
}

// ---- frames with holes ----------------------------------------------------------------------

void Opener::salvage(PartialFrame& frame, OpenerSink& sink) {
  frame.is_salvaging = true;
  const Salvage pieces(frame.bytes(), frame.chunk, frame.received);
  if (!pieces.valid()) return;
  const bool is_first = frame.salvaged == 0;
  std::uint64_t made = 0;
  for (SegmentRun run = pieces.next_run(0, frame.salvaged); run.count > 0;
       run = pieces.next_run(run.first + run.count, frame.salvaged)) {
    deliver_frame(pieces.write(run, pool_->scratch()), sink);
    ++made;
  }
  counters_.pieces += made;
  if (made == 0) return;
  if (is_first) ++counters_.salvaged;
  frame.salvaged = frame.received;
}

void Opener::salvage_overtaken(OpenerSink& sink) {
  for (PartialFrame& frame : partial_) {
    const bool overtaken = window_.end() >= frame.end_counter() + kReorderDatagrams;
    if (overtaken && !frame.is_salvaging) salvage(frame, sink);
  }
  find_next_overtaken();
}

void Opener::find_next_overtaken() {
  next_overtaken_ = UINT64_MAX;
  for (const PartialFrame& frame : partial_) {
    if (frame.is_salvaging) continue;
    next_overtaken_ = std::min(next_overtaken_, frame.end_counter() + kReorderDatagrams);
  }
}

void Opener::tick(Instant now, OpenerSink& sink) {
  for (std::size_t i = partial_.size(); i-- > 0;) {
    PartialFrame& frame = partial_[i];
    const Nanoseconds quiet = now - frame.last_arrival;
    if (quiet >= kGiveUpDelay) {
      give_up(frame, sink);
    } else if (quiet >= kSalvageDelay && !frame.is_salvaging) {
      salvage(frame, sink);
    }
  }
  find_next_overtaken();
}

Instant Opener::settles_at(Instant now) const {
  Instant next = Instant::max();
  for (const Instant since : {mark_time_, last_arrival_}) {
    if (since + kReorderHorizon > now) next = std::min(next, since + kReorderHorizon);
  }
  return next;
}

std::optional<Instant> Opener::next_tick() const {
  std::optional<Instant> next;
  for (const PartialFrame& frame : partial_) {
    const Instant due = frame.last_arrival + (frame.is_salvaging ? kGiveUpDelay : kSalvageDelay);
    next = std::min(next.value_or(due), due);
  }
  return next;
}

void Opener::drain(OpenerSink& sink) {
  std::ranges::sort(partial_, {}, &PartialFrame::first_counter);
  for (PartialFrame& frame : partial_) {
    if (!frame.is_salvaging) salvage(frame, sink);
  }
  while (!partial_.empty()) give_up(partial_.back(), sink);
}

void Opener::give_up(PartialFrame& frame, OpenerSink& sink) {
  if (!frame.is_salvaging) salvage(frame, sink);
  ++counters_.incomplete;
  release(frame);
}

void Opener::release(PartialFrame& frame) {
  pool_->give_back(std::move(frame.buffer));
  if (&frame != &partial_.back()) frame = std::move(partial_.back());
  partial_.pop_back();
  find_next_overtaken();
}

}  // namespace godwit::wire

#include "agent/encode_stage.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

namespace godwit::agent {
namespace {

constexpr std::size_t kChunk = 256 << 10;
// 1 MiB in front of the batcher and a batch more than there are packers keep them busy; 1 MiB
// behind them keeps the lane busy.
constexpr std::size_t kMostChunks = 4;
constexpr std::size_t kMostCodedAhead = 1 << 20;
// Of a packer, so that the next is there when one is done.
constexpr std::size_t kMostBatches = 2;

Bytes reuse(std::vector<Bytes>& spare) {
  if (spare.empty()) return {};
  Bytes bytes = std::move(spare.back());
  spare.pop_back();
  return bytes;
}

}  // namespace

EncodeStage::EncodeStage(os::Loop& control, const codec::Settings& settings,
                         codec::GroupOffers group, Events events)
    : control_(control),
      events_(std::move(events)),
      batcher_(settings, std::move(group)),
      most_catalogue_(crypto::KeyedHash::kKeySize + settings.most_known * crypto::KeyedHash::kSize),
      level_(settings.level) {
  for (int window = 0; window < settings.windows; ++window) {
    packings_.push_back(std::make_unique<Packing>(
        codec::BatchPacker(static_cast<std::uint8_t>(window), settings.window_bits)));
  }
}

EncodeStage::~EncodeStage() = default;

MutableBytes EncodeStage::room() {
  const bool is_full =
      batching_ >= kMostChunks || to_pack_ > packings_.size() || coded_bytes_ >= kMostCodedAhead;
  if (finished_ || is_full) return {};
  if (chunk_.bytes.empty()) {
    chunk_.bytes = reuse(spare_chunks_);
    chunk_.bytes.resize(kChunk);
  }
  return MutableBytes(chunk_.bytes).subspan(chunk_.filled);
}

void EncodeStage::commit(std::size_t count) {
  raw_ += count;
  open_ = true;
  chunk_.filled += count;
  if (chunk_.filled == chunk_.bytes.size()) send();
}

bool EncodeStage::learn(BytesView catalogue) {
  if (catalogue.size() > most_catalogue_) return false;
  most_catalogue_ -= catalogue.size();
  worker_.post([this, bytes = to_bytes(catalogue)] { batcher_.learn(bytes); });
  return true;
}

void EncodeStage::leave_group() {
  worker_.post([this] { batcher_.leave_group(); });
}

void EncodeStage::flush() {
  if (!std::exchange(open_, false)) return;
  chunk_.flush = true;
  send();
}

void EncodeStage::finish() {
  if (std::exchange(finished_, true)) return;
  chunk_.finish = true;
  send();
}

void EncodeStage::send() {
  ++batching_;
  chunk_.spare = reuse(spare_plain_);
  worker_.post([this, chunk = std::exchange(chunk_, {})]() mutable { batch(std::move(chunk)); });
}

void EncodeStage::batch(Chunk chunk) {
  batcher_.reuse(std::move(chunk.spare));
  batcher_.push(BytesView(chunk.bytes).first(chunk.filled));
  if (chunk.finish) {
    batcher_.finish();
  } else if (chunk.flush) {
    batcher_.flush();
  }
  Batched result{.marks = batcher_.take_marks(),
                 .stats = batcher_.stats(),
                 .chunk = std::move(chunk.bytes),
                 .batches = batcher_.take()};
  control_.post([this, alive = std::weak_ptr(alive_), result = std::move(result)]() mutable {
    if (!alive.expired()) batched(std::move(result));
  });
}

void EncodeStage::batched(Batched result) {
  --batching_;
  to_pack_ += result.batches.size();
  std::ranges::move(result.batches, std::back_inserter(batches_));
  pack_waiting();
  spare_chunks_.push_back(std::move(result.chunk));
  stats_ = result.stats;
  stats_.coded = encoded_.coded;
  const std::weak_ptr alive(alive_);
  for (const auto& mark : result.marks) {
    events_.mark(mark);
    if (alive.expired()) return;
  }
  events_.changed();
}

void EncodeStage::pack_waiting() {
  while (!batches_.empty()) {
    Packing& packing =
        **std::ranges::min_element(packings_, {}, [](const auto& each) { return each->batches; });
    if (packing.batches >= kMostBatches) return;
    ++packing.batches;
    packing.worker.post([this, &packing, number = next_batch_++, level = level_.level(),
                         batch = std::move(batches_.front()),
                         coded = reuse(spare_coded_)]() mutable {
      coded.clear();
      packing.packer.pack(batch, level, coded);
      Packed result{.coded = std::move(coded),
                    .plain = std::move(batch.bytes),
                    .raw_end = batch.raw_end,
                    .memory_end = batch.memory_end};
      control_.post([this, alive = std::weak_ptr(alive_), number, &packing,
                     result = std::move(result)]() mutable {
        if (!alive.expired()) packed(number, packing, std::move(result));
      });
    });
    batches_.pop_front();
  }
}

void EncodeStage::packed(std::uint64_t number, Packing& by, Packed result) {
  --by.batches;
  --to_pack_;
  packed_.emplace(number, std::move(result));
  pack_waiting();
  give_packed();
  events_.changed();
}

void EncodeStage::give_packed() {
  while (!packed_.empty() && packed_.begin()->first == next_packed_) {
    Packed& next = packed_.begin()->second;
    ++next_packed_;
    spare_plain_.push_back(std::move(next.plain));
    encoded_ = {.raw = next.raw_end,
                .coded = encoded_.coded + next.coded.size(),
                .memory = next.memory_end};
    stats_.coded = encoded_.coded;
    ends_.push_back(encoded_);
    coded_bytes_ += next.coded.size();
    coded_.push_back(std::move(next.coded));
    packed_.erase(packed_.begin());
  }
}

BytesView EncodeStage::coded() const {
  return coded_.empty() ? BytesView{} : BytesView(coded_.front()).subspan(taken_);
}

void EncodeStage::took(std::size_t count) {
  taken_ += count;
  coded_bytes_ -= count;
  if (coded_.empty() || taken_ < coded_.front().size()) return;
  spare_coded_.push_back(std::move(coded_.front()));
  coded_.pop_front();
  taken_ = 0;
}

std::uint64_t EncodeStage::raw_until(std::uint64_t position) {
  while (!ends_.empty() && ends_.front().coded <= position) {
    raw_until_ = ends_.front().raw;
    memory_until_ = ends_.front().memory;
    ends_.pop_front();
  }
  return raw_until_;
}

void EncodeStage::adapt(bool lane_busy) {
  if (!level_.pass(control_.now(), is_at_work(), lane_busy)) return;
  spdlog::debug("encoding at level {}", level_.level());
}

}  // namespace godwit::agent

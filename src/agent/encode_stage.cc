#include "agent/encode_stage.hh"

#include <spdlog/spdlog.h>

#include <utility>

namespace godwit::agent {
namespace {

constexpr std::size_t kChunk = 256 << 10;
// 1 MiB in front of the encoder keeps it busy; as much behind it keeps the lane busy.
constexpr std::size_t kChunksInWorker = 4;
constexpr std::size_t kMostCodedAhead = 1 << 20;

Bytes reuse(std::vector<Bytes>& spare) {
  if (spare.empty()) return {};
  Bytes bytes = std::move(spare.back());
  spare.pop_back();
  return bytes;
}

std::uint64_t memory_of(const codec::Stats& stats) {
  constexpr std::uint64_t kPage = 4096;
  std::uint64_t bytes = 0;
  for (const codec::EncodingStats& each : stats.by_encoding) bytes += each.raw;
  return bytes + stats.by_encoding[std::to_underlying(codec::Encoding::kZero)].pages * kPage;
}

}  // namespace

EncodeStage::EncodeStage(os::Loop& control, const codec::Settings& settings,
                         codec::GroupOffers group, Events events)
    : control_(control),
      events_(std::move(events)),
      encoder_(settings, std::move(group)),
      most_catalogue_(crypto::KeyedHash::kKeySize + settings.most_known * crypto::KeyedHash::kSize),
      level_(settings.level) {}

EncodeStage::~EncodeStage() = default;

MutableBytes EncodeStage::room() {
  if (finished_ || in_worker_ >= kChunksInWorker || coded_bytes_ >= kMostCodedAhead) return {};
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
  worker_.post([this, bytes = to_bytes(catalogue)] { encoder_.learn(bytes); });
  return true;
}

void EncodeStage::leave_group() {
  worker_.post([this] { encoder_.leave_group(); });
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
  ++in_worker_;
  chunk_.spare = reuse(spare_coded_);
  worker_.post([this, chunk = std::exchange(chunk_, {})]() mutable { encode(std::move(chunk)); });
}

void EncodeStage::encode(Chunk chunk) {
  encoder_.push(BytesView(chunk.bytes).first(chunk.filled));
  if (chunk.finish) {
    encoder_.finish();
  } else if (chunk.flush) {
    encoder_.flush();
  }
  Result result{.coded = encoder_.take(std::move(chunk.spare)),
                .marks = encoder_.take_marks(),
                .stats = encoder_.stats(),
                .chunk = std::move(chunk)};
  control_.post([this, alive = std::weak_ptr(alive_), result = std::move(result)]() mutable {
    if (!alive.expired()) came(std::move(result));
  });
}

void EncodeStage::came(Result result) {
  --in_worker_;
  spare_chunks_.push_back(std::move(result.chunk.bytes));
  stats_ = result.stats;
  if (!result.coded.bytes.empty()) {
    encoded_ = {.raw = result.coded.raw_end,
                .coded = encoded_.coded + result.coded.bytes.size(),
                .memory = memory_of(stats_)};
    coded_bytes_ += result.coded.bytes.size();
    ends_.push_back(encoded_);
    coded_.push_back(std::move(result.coded.bytes));
  }
  const std::weak_ptr alive(alive_);
  for (const auto& mark : result.marks) {
    events_.mark(mark);
    if (alive.expired()) return;
  }
  events_.changed();
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
  if (!level_.pass(control_.now(), in_worker_ > 0, lane_busy)) return;
  spdlog::debug("encoding at level {}", level_.level());
  worker_.post([this, level = level_.level()] { encoder_.set_level(level); });
}

}  // namespace godwit::agent

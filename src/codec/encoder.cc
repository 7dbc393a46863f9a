#include "codec/encoder.hh"

#include <utility>

namespace godwit::codec {

Encoder::Encoder(const Settings& settings, GroupOffers group)
    : level_(settings.level), batcher_(settings, std::move(group)) {
  for (int i = 0; i < settings.windows; ++i) {
    packers_.emplace_back(static_cast<std::uint8_t>(i), settings.window_bits);
  }
}

void Encoder::push(BytesView raw) {
  batcher_.push(raw);
  pack();
}

void Encoder::flush() {
  batcher_.flush();
  pack();
}

void Encoder::finish() {
  batcher_.finish();
  pack();
}

void Encoder::pack() {
  for (PlainBatch& batch : batcher_.take()) {
    const std::size_t before = out_.bytes.size();
    packers_[next_].pack(batch, level_, out_.bytes);
    next_ = (next_ + 1) % packers_.size();
    coded_ += out_.bytes.size() - before;
    out_.raw_end = batch.raw_end;
    batcher_.reuse(std::move(batch.bytes));
  }
}

Encoder::Coded Encoder::take() {
  const std::uint64_t raw_end = out_.raw_end;
  return std::exchange(out_, Coded{.bytes = {}, .raw_end = raw_end});
}

Stats Encoder::stats() const {
  Stats stats = batcher_.stats();
  stats.coded = coded_;
  return stats;
}

}  // namespace godwit::codec

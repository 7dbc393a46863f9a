#include "agent/decode_stage.hh"

#include <algorithm>
#include <utility>

namespace godwit::agent {
namespace {

// Coded bytes given to the decoder at once, and what it makes of them before QEMU has to take it.
constexpr std::size_t kMostCoded = 256 << 10;
constexpr std::size_t kMostRaw = 2 << 20;

}  // namespace

DecodeStage::DecodeStage(os::Loop& control, const codec::Settings& settings, codec::Known known,
                         std::shared_ptr<SharedReader> group, Events events)
    : control_(control),
      events_(std::move(events)),
      group_(std::move(group)),
      decoder_(settings, std::move(known), group_) {}

// The worker may be waiting for another vm's page.
DecodeStage::~DecodeStage() {
  if (group_) group_->leave();
}

std::size_t DecodeStage::take(BytesView coded) {
  if (working_ || more_ || raw_.size() > 1) return 0;
  const std::size_t count = up_to_batch_end(coded.first(std::min(coded.size(), kMostCoded)));
  work(coded.first(count));
  return count;
}

std::size_t DecodeStage::up_to_batch_end(BytesView coded) {
  std::size_t count = 0;
  if (to_come_ == 0) {
    count = std::min(coded.size(), codec::BatchHeader::kSize - header_.size());
    append(header_, coded.first(count));
    if (header_.size() < codec::BatchHeader::kSize) return count;
    const auto header = codec::parse_header(header_);
    header_.clear();
    to_come_ = header ? header->coded : 0;  // the decoder tells what is wrong with it
  }
  const std::size_t rest = std::min(coded.size() - count, to_come_);
  to_come_ -= rest;
  return count + rest;
}

void DecodeStage::work(BytesView coded) {
  working_ = true;
  coded_.assign(coded.begin(), coded.end());
  Bytes spare;
  if (!spare_.empty()) {
    spare = std::move(spare_.back());
    spare_.pop_back();
  }
  worker_.post([this, piece = std::move(coded_), spare = std::move(spare)]() mutable {
    decoder_.push(piece);
    Outcome outcome;
    outcome.coded = std::move(piece);
    Result<bool> more = true;
    while (more && *more && decoder_.waiting() < kMostRaw) more = decoder_.step();
    if (!more) outcome.error = more.error();
    outcome.more = more && *more;
    outcome.raw = decoder_.take(std::move(spare));
    outcome.checkpointed = decoder_.checkpointed();
    outcome.verified = decoder_.verified();
    control_.post([this, alive = std::weak_ptr(alive_), outcome = std::move(outcome)]() mutable {
      if (!alive.expired()) came(std::move(outcome));
    });
  });
}

void DecodeStage::came(Outcome outcome) {
  working_ = false;
  coded_ = std::move(outcome.coded);
  more_ = outcome.more;
  checkpointed_ = outcome.checkpointed;
  verified_ = outcome.verified;
  if (outcome.error) return events_.failed(outcome.error->text);
  if (!outcome.raw.empty()) raw_.push_back(std::move(outcome.raw));
  if (more_ && raw_.size() <= 1) work({});
  events_.changed();
}

BytesView DecodeStage::raw() const {
  return raw_.empty() ? BytesView{} : BytesView(raw_.front()).subspan(taken_);
}

void DecodeStage::took(std::size_t count) {
  taken_ += count;
  if (raw_.empty() || taken_ < raw_.front().size()) return;
  spare_.push_back(std::move(raw_.front()));
  raw_.pop_front();
  taken_ = 0;
  if (more_ && !working_ && raw_.size() <= 1) work({});
}

}  // namespace godwit::agent

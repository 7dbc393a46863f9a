#include "wire/intake.hh"

#include <algorithm>

namespace godwit::wire {

void Intake::start(Label at) {
  started_ = true;
  go_to(at);
}

// Frames kept for segments before `next` will not be waited for: they go first.
void Intake::go_to(Label next) {
  HeldBuffer earlier;
  for (auto it = segments_.begin(); it != segments_.end() && it->first < next;) {
    for (const Bytes& frame : it->second.frames.frames()) earlier.push(frame, SIZE_MAX);
    it = segments_.erase(it);
  }
  HeldBuffer& frames = segments_[next].frames;
  if (!earlier.empty()) {
    for (const Bytes& frame : frames.frames()) earlier.push(frame, SIZE_MAX);
    frames = std::move(earlier);
  }
  current_ = next;
  begins_.erase(begins_.begin(), begins_.lower_bound(next.producer));
  blocked_since_.reset();
}

bool Intake::frame(Label label, BytesView frame, Instant now) {
  if (started_ && label < current_) {
    ++counters_.late;
    label = current_;
  }
  if (open_ && started_ && label == current_) return true;
  ++counters_.held;
  const bool fits = segments_.contains(label) || segments_.size() < limits_.segments;
  if (!fits || held_bytes_ + frame.size() + HeldBuffer::kFrameOverhead > limits_.held_bytes) {
    ++counters_.dropped;
    return false;
  }
  HeldBuffer& frames = segments_[label].frames;
  frames.push(frame, SIZE_MAX);
  held_bytes_ += frame.size() + HeldBuffer::kFrameOverhead;
  note_blocked(now);
  return false;
}

void Intake::note_blocked(Instant now) {
  if (!open_ || blocked_since_) return;
  const bool waits =
      std::any_of(segments_.upper_bound(current_), segments_.end(),
                  [](const auto& segment) { return !segment.second.frames.empty(); });
  if (waits) blocked_since_ = now;
}

void Intake::ended(Label label, const End& end) {
  if (started_ && label < current_) return;
  if (!segments_.contains(label) && segments_.size() >= limits_.segments) return;
  std::optional<End>& known = segments_[label].end;
  if (!known || known->serial < end.serial) known = end;
}

void Intake::begins(Epoch producer, Epoch first) {
  if (started_ && producer < current_.producer) return;
  if (begins_.size() < kMaxLocations || begins_.contains(producer)) {
    begins_.emplace(producer, first);
  }
}

// To the next segment, if it is known which.
bool Intake::step() {
  const std::optional<End>& end = segments_[current_].end;
  if (!end) return false;
  Label next{current_.producer, end->next};
  if (end->kind == End::Kind::eof) {
    const auto first = begins_.find(end->next);
    if (first == begins_.end()) return false;
    next = {end->next, first->second};
  }
  if (next <= current_) return false;
  go_to(next);
  return true;
}

void Intake::release_current(const Deliver& deliver) {
  HeldBuffer& frames = segments_[current_].frames;
  while (!frames.empty()) {
    const Bytes frame = frames.pop();
    held_bytes_ -= frame.size() + HeldBuffer::kFrameOverhead;
    deliver(frame);
  }
}

void Intake::open(bool open, Instant now, const Deliver& deliver) {
  open_ = open;
  blocked_since_.reset();
  advance(now, deliver);
}

void Intake::advance(Instant now, const Deliver& deliver) {
  if (!open_ || !started_) return;
  release_current(deliver);
  while (step()) release_current(deliver);
  note_blocked(now);
}

void Intake::force(Instant now, const Deliver& deliver) {
  const auto next =
      std::find_if(segments_.upper_bound(current_), segments_.end(),
                   [](const auto& segment) { return !segment.second.frames.empty(); });
  if (next == segments_.end()) return blocked_since_.reset();
  ++counters_.forced;
  go_to(next->first);
  advance(now, deliver);
}

void Intake::clear() {
  segments_.clear();
  begins_.clear();
  held_bytes_ = 0;
  blocked_since_.reset();
}

std::size_t Intake::held_frames() const {
  std::size_t frames = 0;
  for (const auto& [label, kept] : segments_) frames += kept.frames.size();
  return frames;
}

std::vector<Label> Intake::known_begins() const {
  std::vector<Label> labels;
  for (const auto& [producer, first] : begins_) labels.push_back({producer, first});
  return labels;
}

}  // namespace godwit::wire

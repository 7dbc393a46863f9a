#include "stream/delivery_rate.hh"

#include <algorithm>

namespace godwit::stream {

void DeliveryRate::pass(Instant now, bool lane_limited) {
  if (!started_) {
    started_ = true;
    last_ = now;
    return;
  }
  if (now <= last_) return;
  current_.length += now - last_;
  if (lane_limited) current_.limited += now - last_;
  last_ = now;
  // A slot may be longer than kSlot when nothing happened; its own length counts.
  if (current_.length >= kSlot) close_slot();
}

void DeliveryRate::close_slot() {
  closed_[next_] = current_;
  next_ = (next_ + 1) % kSlots;
  Slot sum;
  for (const Slot& slot : closed_) {
    if (!slot.is_measure()) continue;
    sum.bytes += slot.bytes;
    sum.length += slot.length;
  }
  if (current_.is_measure()) {
    estimate_ = sum.rate();
  } else {
    estimate_ = std::max(estimate_, current_.rate());
  }
  current_ = Slot{};
}

}  // namespace godwit::stream

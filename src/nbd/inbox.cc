#include "nbd/inbox.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::nbd {

Inbox::Inbox(std::size_t longest)
    : capacity_(longest + kReadAhead), storage_(large_memory(capacity_)) {}

MutableBytes Inbox::room() {
  const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(
      capacity_, std::max<std::uint64_t>(expected_, to_skip_) + kReadAhead));
  const bool too_short =
      begin_ + expected_ > capacity_ || (expected_ == 0 && begin_ + wanted > capacity_);
  if (begin_ == end_ || too_short) {
    std::memmove(storage_.get(), storage_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  const std::size_t limit = std::min(capacity_, begin_ + wanted);
  return {storage_.get() + end_, limit - std::min(limit, end_)};
}

void Inbox::commit(std::size_t count) {
  CHECK(count <= capacity_ - end_, "{} bytes, room for {}", count, capacity_ - end_);
  end_ += count;
  drop_skipped();
}

void Inbox::expect(std::size_t whole) {
  CHECK(whole <= capacity_ - kReadAhead, "a message of {} bytes", whole);
  expected_ = whole;
}

BytesView Inbox::take(std::size_t count) {
  const BytesView taken = bytes().first(count);
  begin_ += count;
  expected_ = 0;
  return taken;
}

void Inbox::skip(std::uint64_t count) {
  CHECK(to_skip_ == 0);
  to_skip_ = count;
  drop_skipped();
}

void Inbox::drop_skipped() {
  const auto here = static_cast<std::size_t>(std::min<std::uint64_t>(to_skip_, end_ - begin_));
  to_skip_ -= here;
  begin_ += here;
}

}  // namespace godwit::nbd

#include "http/handed_stream.hh"

#include <algorithm>
#include <utility>

namespace godwit::http {

HandedStream::HandedStream(os::Loop& loop, std::unique_ptr<os::ByteStream> inner)
    : loop_(loop), inner_(std::move(inner)) {}

void HandedStream::start(Events events) {
  const bool first = events_ == nullptr;
  events_ = std::make_shared<Events>(std::move(events));
  if (first) return start_inner();
  replay_timer_ = loop_.after(Nanoseconds(0), [this] { replay(); });
}

void HandedStream::start_inner() {
  inner_->start({
      .readable =
          [this] {
            const auto events = events_;
            if (events->readable) events->readable();
          },
      .writable =
          [this] {
            const auto events = events_;
            if (events->writable) events->writable();
          },
      .closed =
          [this](std::string reason) {
            const auto events = events_;
            closed_ = true;
            closed_reason_ = reason;
            if (events->closed) events->closed(std::move(reason));
          },
  });
}

void HandedStream::replay() {
  const auto events = events_;
  const bool closed = closed_;  // copies: `readable` may destroy this stream
  const std::string reason = closed_reason_;
  if (closed) {
    if (events->closed) events->closed(reason);
    return;
  }
  if (events->readable) events->readable();
}

std::size_t HandedStream::read(MutableBytes into) {
  if (put_back_.empty()) return inner_->read(into);
  const std::size_t count = std::min(into.size(), put_back_.size());
  std::copy_n(put_back_.begin(), count, into.begin());
  put_back_.erase(put_back_.begin(), put_back_.begin() + static_cast<std::ptrdiff_t>(count));
  return count;
}

}  // namespace godwit::http

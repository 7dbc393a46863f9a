#include "wire/fragment.hh"

#include "base/check.hh"

namespace godwit::wire {

std::unique_ptr<FrameBuffer> FramePool::take() {
  if (free_.empty()) {
    if (made_ >= max_buffers_) return nullptr;
    ++made_;
    return std::make_unique_for_overwrite<FrameBuffer>();
  }
  auto buffer = std::move(free_.back());
  free_.pop_back();
  return buffer;
}

void FramePool::give_back(std::unique_ptr<FrameBuffer> buffer) {
  CHECK(buffer != nullptr && free_.size() < made_);
  free_.push_back(std::move(buffer));
}

BytesView without_padding(BytesView fragments, std::size_t chunk) {
  const auto padding = std::to_integer<std::size_t>(fragments.back());
  if (padding == 0 || padding > chunk) return {};
  return fragments.first(fragments.size() - padding);
}

}  // namespace godwit::wire

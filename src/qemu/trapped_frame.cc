#include "qemu/trapped_frame.hh"

#include <algorithm>
#include <array>

namespace godwit::qemu {
namespace {

constexpr std::size_t kVnetHeader = 10;
constexpr std::size_t kShortestFrame = 60;  // IEEE 802.3 without FCS
// Destination, source, EtherType; then a name that tells it from other experiments.
constexpr std::array<unsigned char, 14> kPlugHeader{0x02, 0x67, 0x6f, 0x64, 0x77, 0x69, 0x02,
                                                    0x67, 0x6f, 0x64, 0x77, 0x74, 0x88, 0xb5};
constexpr std::string_view kPlugText = "godwit plug";

// QMP commands run in the main loop, one a turn. The first may be of a turn that polled before the
// call; the second's turn polled after it, but may answer before it handles its other descriptors;
// when the third is answered that turn is over.
constexpr int kTurns = 3;

// Apart from its virtio header, which QEMU rewrites.
bool ends_alike(BytesView frame, BytesView newest) {
  if (frame.size() <= kVnetHeader) return false;
  const std::size_t size = std::min(frame.size() - kVnetHeader, newest.size());
  return size > 0 && std::ranges::equal(frame.last(size), newest.last(size));
}

void turn(Qmp& qmp, int left, Done done) {
  if (left == 0) return done({});
  query_status(qmp, [&qmp, left, done = std::move(done)](Result<VmStatus> status) mutable {
    if (!status) return done(std::unexpected(status.error()));
    turn(qmp, left - 1, std::move(done));
  });
}

}  // namespace

Bytes plug_frame() {
  Bytes frame(kVnetHeader + kShortestFrame);
  const auto at = frame.begin() + kVnetHeader;
  std::ranges::transform(kPlugHeader, at, [](unsigned char byte) { return std::byte{byte}; });
  std::ranges::copy(as_bytes(kPlugText), at + kPlugHeader.size());
  return frame;
}

bool is_plug(BytesView frame) {
  static const Bytes plug = plug_frame();
  // The kernel may have rewritten the virtio header.
  return frame.size() == plug.size() &&
         std::ranges::equal(frame.subspan(kVnetHeader), BytesView(plug).subspan(kVnetHeader));
}

void main_loop_barrier(Qmp& qmp, Done done) { turn(qmp, kTurns, std::move(done)); }

void TrappedFrame::wrote(BytesView frame) {
  kept_.push_back(to_bytes(frame));
  bytes_ += frame.size();
  while (kept_.size() > kMaxKeptFrames || bytes_ > kMaxKeptBytes) {
    bytes_ -= kept_.front().size();
    kept_.pop_front();
  }
}

TrappedFrame::Recovered TrappedFrame::recover(std::vector<Bytes> untaken, BytesView newest) const {
  Recovered recovered;
  const bool is_trapped = std::erase_if(untaken, [](const Bytes& frame) { return is_plug(frame); });
  std::size_t taken = kept_.size() - std::min(kept_.size(), untaken.size());
  recovered.lost_one = is_trapped && taken == 0;
  if (is_trapped && taken > 0) recovered.trapped = kept_[--taken];
  if (taken >= 2 && !ends_alike(kept_[taken - 1], newest) && ends_alike(kept_[taken - 2], newest)) {
    recovered.frames.push_back(kept_[taken - 1]);
  }
  if (!recovered.trapped.empty()) recovered.frames.push_back(recovered.trapped);
  std::ranges::move(untaken, std::back_inserter(recovered.frames));
  return recovered;
}

}  // namespace godwit::qemu

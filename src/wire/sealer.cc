#include "wire/sealer.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::wire {
namespace {

constexpr std::size_t kLengthBytes = 2;  // before each frame of a bundle

std::size_t capacity_for(std::size_t path_mtu) {
  return payload_capacity(std::clamp(path_mtu, kMinPathMtu, kMaxPathMtu));
}

}  // namespace

void SealerCounters::add_to(Drops& drops) const {
  drops["bad_size"] += bad_size;
  drops["expired"] += exhausted;
}

Sealer::Sealer(const LaneKey& key, std::size_t path_mtu, std::uint64_t max_datagrams)
    : aead_(crypto::make_aead(key.algorithm, key.key, key.backend)),
      receiver_index_(key.receiver_index),
      epoch_(key.epoch),
      capacity_(capacity_for(path_mtu)),
      max_datagrams_(max_datagrams),
      scratch_(payload_capacity(kMaxPathMtu)) {
  CHECK(max_datagrams <= kMaxDatagrams);
}

void Sealer::frame(BytesView vnet_and_ethernet, DatagramBatch& out) {
  if (vnet_and_ethernet.size() < kMinFrameBytes || vnet_and_ethernet.size() > kMaxFrameBytes) {
    ++counters_.bad_size;
    return;
  }
  if (kLengthBytes + vnet_and_ethernet.size() <= capacity_) {
    bundle(vnet_and_ethernet, out);
  } else {
    fragment(vnet_and_ethernet, out);
  }
}

void Sealer::bundle(BytesView frame, DatagramBatch& out) {
  if (bundle_bytes_ + kLengthBytes + frame.size() > capacity_) {
    // Full bundles are made equal, so that they share a run, if that costs little.
    const bool nearly_full = bundle_bytes_ >= capacity_ - capacity_ / 8;
    seal_bundle(nearly_full ? capacity_ : bundle_bytes_, out);
  }
  if (!has_counters(1)) return;
  std::byte* at = scratch_.data() + bundle_bytes_;
  to_big_endian(static_cast<std::uint16_t>(frame.size()), at);
  std::copy(frame.begin(), frame.end(), at + kLengthBytes);
  bundle_bytes_ += kLengthBytes + frame.size();
  ++bundle_frames_;
  ++counters_.frames;
  counters_.frame_bytes += frame.size() - kVnetBytes;
}

// Equal pieces: any one of them tells where it lies, and they fill runs. The last is padded by less
// than their number of bytes, and its last byte says by how many.
void Sealer::fragment(BytesView frame, DatagramBatch& out) {
  flush(out);
  const std::size_t count = (frame.size() + 1 + capacity_ - 1) / capacity_;
  const std::size_t chunk = (frame.size() + 1 + count - 1) / count;
  CHECK(count <= kMaxFragments, "{} fragments of {} B", count, chunk);
  if (!has_counters(count)) return;
  DatagramHeader header{.type = DatagramType::fragment, .count = static_cast<std::uint8_t>(count)};
  for (std::size_t index = 0; index + 1 < count; ++index) {
    header.index = static_cast<std::uint8_t>(index);
    seal(header, frame.subspan(index * chunk, chunk), out);
  }
  const BytesView rest = frame.subspan(std::min((count - 1) * chunk, frame.size()));
  const std::size_t padding = chunk - rest.size();
  std::copy(rest.begin(), rest.end(), scratch_.begin());
  std::fill_n(scratch_.data() + rest.size(), padding, std::byte{0});
  scratch_[chunk - 1] = static_cast<std::byte>(padding);
  header.index = static_cast<std::uint8_t>(count - 1);
  seal(header, BytesView(scratch_).first(chunk), out);
  ++counters_.frames;
  counters_.frame_bytes += frame.size() - kVnetBytes;
}

void Sealer::message(std::uint8_t kind, BytesView body, DatagramBatch& out) {
  CHECK(body.size() <= max_message_bytes(), "message {} of {} B", kind, body.size());
  flush(out);
  if (!has_counters(1)) return;
  scratch_[0] = std::byte{kind};
  std::copy(body.begin(), body.end(), scratch_.begin() + 1);
  seal({.type = DatagramType::message}, BytesView(scratch_).first(1 + body.size()), out);
  ++counters_.messages;
}

void Sealer::flush(DatagramBatch& out) {
  if (bundle_frames_ > 0) seal_bundle(bundle_bytes_, out);
}

// Zeros after the last frame are padding: no frame has the length 0.
void Sealer::seal_bundle(std::size_t pad_to, DatagramBatch& out) {
  std::fill(scratch_.data() + bundle_bytes_, scratch_.data() + pad_to, std::byte{0});
  seal({.type = DatagramType::bundle}, BytesView(scratch_).first(pad_to), out);
  bundle_bytes_ = 0;
  bundle_frames_ = 0;
}

void Sealer::set_path_mtu(std::size_t path_mtu, DatagramBatch& out) {
  flush(out);
  capacity_ = capacity_for(path_mtu);
}

// A bundle that waits has its counter reserved by the same test.
bool Sealer::has_counters(std::uint64_t count) {
  if (next_counter_ + count <= max_datagrams_) return true;
  ++counters_.exhausted;
  return false;
}

void Sealer::seal(DatagramHeader header, BytesView body, DatagramBatch& out) {
  CHECK(next_counter_ < max_datagrams_, "a nonce would be used beyond its key");
  header.epoch = static_cast<std::uint8_t>(epoch_ & 0xff);
  header.receiver_index = receiver_index_;
  header.counter = next_counter_++;
  const MutableBytes datagram = out.add(kDatagramOverhead + body.size());
  write_header(header, datagram.first<kHeaderBytes>());
  aead_->seal(nonce_of(datagram), make_aad(epoch_, datagram), body, datagram.subspan(kHeaderBytes));
  ++counters_.datagrams;
}

}  // namespace godwit::wire

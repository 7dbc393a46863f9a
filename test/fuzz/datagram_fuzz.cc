// Hostile bytes for the receiving half of a wire, in three parts, by the first byte:
//   0  raw datagrams: what anybody can send to the UDP port;
//   1  sealed bodies of any content: what a peer with the right key can send;
//   2  fragments of one frame of any content with holes: reassembly, salvage, vnet checks.
// Whatever is delivered must be what check_vnet() passes, in bounded memory.
#include <algorithm>
#include <cstdlib>

#include "base/check.hh"
#include "wire/opener.hh"
#include "wire/vnet.hh"

namespace godwit::wire {
namespace {

struct CheckingSink final : OpenerSink {
  void frame(BytesView bytes) override { CHECK(check_vnet(bytes)); }
  void message(std::uint8_t, BytesView body, std::uint64_t) override {
    CHECK(body.size() < kMaxFrameBytes);
  }
};

LaneKey fuzz_key() {
  LaneKey lane;
  lane.receiver_index = 0x01020304;
  lane.epoch = 3;
  return lane;
}

class Target final {
 public:
  void raw(BytesView input) {
    Bytes datagram = to_bytes(input);
    (void)receiver_index(datagram);
    open(datagram);
  }

  // A type and two header bytes of the input's choice, sealed properly.
  void sealed(Reader& input) {
    const std::uint8_t type = input.u8() % 3;
    const bool is_fragment = type == 0;
    DatagramHeader header{.type = static_cast<DatagramType>(type)};
    const std::uint8_t fields[2] = {input.u8(), input.u8()};
    if (is_fragment) {
      header.count = static_cast<std::uint8_t>(1 + fields[0] % kMaxFragments);
      header.index = static_cast<std::uint8_t>(fields[1] % header.count);
    }
    header.counter = kMaxFragments + input.u16();
    seal_and_open(header, input.bytes(std::min<std::size_t>(input.u16(), input.remaining())));
  }

  // One frame with some of its fragments left out, then time passes.
  void holes(Reader& input) {
    const FragmentSet lost = input.u64();
    const std::size_t chunk = 1 + input.u8();
    Bytes frame = to_bytes(input.rest());
    const std::size_t count = std::min<std::size_t>(frame.size() / chunk + 1, kMaxFragments);
    frame.resize(count * chunk);
    for (std::size_t i = 0; i < count; ++i) {
      if (((lost >> i) & 1) != 0) continue;
      const DatagramHeader header{.type = DatagramType::fragment,
                                  .index = static_cast<std::uint8_t>(i),
                                  .count = static_cast<std::uint8_t>(count),
                                  .counter = next_ + i};
      seal_and_open(header, BytesView(frame).subspan(i * chunk, chunk));
      if (i == count / 2) pass(kSalvageDelay);
    }
    next_ += count;
    pass(kSalvageDelay);
    pass(kGiveUpDelay);
    CHECK(pool_.in_use() == 0);
  }

 private:
  void seal_and_open(DatagramHeader header, BytesView body) {
    header.epoch = 3;
    header.receiver_index = key_.receiver_index;
    Bytes datagram(kDatagramOverhead + body.size());
    write_header(header, HeaderBytes(datagram.data(), kHeaderBytes));
    aead_->seal(nonce_of(datagram), make_aad(key_.epoch, datagram), body,
                MutableBytes(datagram).subspan(kHeaderBytes));
    open(datagram);
  }
  void open(MutableBytes datagram) {
    (void)opener_.open(datagram, now_, sink_);
    CHECK(pool_.in_use() <= kMaxPartialFrames);
  }
  void pass(Nanoseconds time) {
    now_ += time;
    opener_.tick(now_, sink_);
  }

  LaneKey key_ = fuzz_key();
  std::unique_ptr<crypto::Aead> aead_ = crypto::make_aead(key_.algorithm, key_.key);
  FramePool pool_;
  Opener opener_{key_, pool_};
  CheckingSink sink_;
  Instant now_{seconds(1)};
  std::uint64_t next_ = 1'000'000;
};

}  // namespace
}  // namespace godwit::wire

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace godwit;
  const BytesView bytes(reinterpret_cast<const std::byte*>(data), size);
  Reader input(bytes);
  wire::Target target;
  switch (input.u8() % 3) {
    case 0:
      target.raw(input.rest());
      break;
    case 1:
      while (input.remaining() > 0) target.sealed(input);
      break;
    default:
      target.holes(input);
  }
  return 0;
}

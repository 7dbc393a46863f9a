#pragma once
// Frames, keys and sinks for the tests of this directory and for the fuzz target.
#include <random>
#include <string>
#include <vector>

#include "wire/batch.hh"
#include "wire/opener.hh"
#include "wire/sealer.hh"
#include "wire/vnet.hh"

namespace godwit::wire::testing {

using Random = std::mt19937;

inline LaneKey test_key(Epoch epoch = 3) {
  LaneKey lane;
  lane.key.bytes.fill(std::byte{0x2a});
  lane.receiver_index = 0x01020304;
  lane.epoch = epoch;
  return lane;
}

// A frame of `size` bytes in all, vnet header of zeros and random Ethernet.
inline Bytes plain_frame(std::size_t size, Random& random) {
  Bytes frame(size);
  for (std::size_t i = kVnetBytes; i < size; ++i) frame[i] = static_cast<std::byte>(random());
  return frame;
}

struct SuperFrameSpec {
  bool is_ip6 = false;
  bool is_udp = false;
  bool has_vlan = false;
  std::size_t payload = 60'000;
  std::uint16_t gso_size = 1448;
  std::size_t options = 12;  // bytes of TCP options
  std::uint8_t tcp_flags = 0x18;
  std::uint32_t sequence = 0xfffffff0;
  bool ecn = false;
};
// As a Linux guest makes it: pseudo-header sum in place, the rest left to be finished.
Bytes super_frame(const SuperFrameSpec& spec, Random& random);

// The ones' complement sum of bytes, not complemented (RFC 1071), byte by byte: slow and plain, so
// that it shares nothing with the code under test.
std::uint16_t folded_sum(BytesView bytes, std::uint64_t sum);

// What a network card does with a frame that asks for it: cuts a super-frame into its packets and
// finishes the checksum. Only for frames of super_frame() and pieces of them.
std::vector<Bytes> offload(BytesView frame);
// Empty when the Ethernet packet has right IP lengths and IP, TCP and UDP checksums, all computed
// afresh; else what is wrong.
std::string fault_in(BytesView packet);
// The checksum field holds just the sum of the pseudo-header, as check_vnet's callers rely on.
bool has_right_seed(BytesView frame);

struct Collected final : OpenerSink {
  struct Message {
    std::uint8_t kind;
    Bytes body;
    std::uint64_t counter;
    bool operator==(const Message&) const = default;
  };
  std::vector<Bytes> frames;
  std::vector<Message> messages;

  void frame(BytesView bytes) override { frames.push_back(to_bytes(bytes)); }
  void message(std::uint8_t kind, BytesView body, std::uint64_t counter) override {
    messages.push_back({kind, to_bytes(body), counter});
  }
};

// The datagrams of a batch, one by one.
inline std::vector<Bytes> datagrams_of(const DatagramBatch& batch) {
  std::vector<Bytes> datagrams;
  for (const DatagramRun& run : batch.runs()) {
    for (std::size_t at = 0; at < run.bytes.size(); at += run.segment_size) {
      const std::size_t size = std::min<std::size_t>(run.segment_size, run.bytes.size() - at);
      datagrams.push_back(to_bytes(BytesView(run.bytes).subspan(at, size)));
    }
  }
  return datagrams;
}

}  // namespace godwit::wire::testing

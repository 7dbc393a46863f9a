#pragma once
// The sending half of a lane: frames and messages in, sealed datagrams out.
//
//   frame --- fits a bundle? --yes--> copied into the open bundle ---- full, or flush() --> seal
//               `--no--> flush the bundle, cut into equal fragments, each sealed where it will lie
//
// What comes out has the counters, and thus the order, of what went in.
#include <cstdint>
#include <memory>

#include "wire/batch.hh"
#include "wire/datagram.hh"
#include "wire/types.hh"

namespace godwit::wire {

struct SealerCounters {
  std::uint64_t frames = 0;       // sealed, or waiting in the bundle
  std::uint64_t frame_bytes = 0;  // of them, Ethernet without the vnet header
  std::uint64_t messages = 0;
  std::uint64_t datagrams = 0;
  std::uint64_t bad_size = 0;   // frames refused: shorter than a header or longer than 64 KiB
  std::uint64_t exhausted = 0;  // frames and messages refused: the key was used up

  void add_to(Drops& drops) const;
};

// One key, one counter, one thread; owned by the wire engine. Never allocates after construction
// (but see DatagramBatch).
class Sealer final {
 public:
  // A key seals at most so many datagrams; then it is used up, for good.
  static constexpr std::uint64_t kMaxDatagrams = std::uint64_t{1} << 27;
  // Ask for the next generation when so few are left: 1/16 of the whole, 10 s at 800 kpps.
  static constexpr std::uint64_t kRekeyReserve = kMaxDatagrams / 16;

  // `path_mtu` is the IP MTU of the path: kMinPathMtu to kMaxPathMtu, clamped. Tests make keys that
  // are used up sooner.
  Sealer(const LaneKey& key, std::size_t path_mtu, std::uint64_t max_datagrams = kMaxDatagrams);

  // One frame as the TAP gave it. Small ones wait in the bundle until it is full or flush().
  void frame(BytesView vnet_and_ethernet, DatagramBatch& out);
  // An in-channel message, sealed at once and behind all frames before it. Its body has at most
  // max_message_bytes(), CHECKed.
  void message(std::uint8_t kind, BytesView body, DatagramBatch& out);
  // Seals what waits. Call after each batch of frames.
  void flush(DatagramBatch& out);

  // Takes effect from the next datagram on; the open bundle is flushed.
  void set_path_mtu(std::size_t path_mtu, DatagramBatch& out);
  std::size_t max_message_bytes() const { return capacity_ - 1; }

  // The counter of the next datagram; all below were used. What waits in the bundle has none yet.
  std::uint64_t next_counter() const { return next_counter_; }
  bool wants_rekey() const { return next_counter_ + kRekeyReserve >= max_datagrams_; }
  bool exhausted() const { return next_counter_ >= max_datagrams_; }
  std::uint32_t receiver_index() const { return receiver_index_; }
  Epoch epoch() const { return epoch_; }
  const SealerCounters& counters() const { return counters_; }

 private:
  void bundle(BytesView frame, DatagramBatch& out);
  void fragment(BytesView frame, DatagramBatch& out);
  void seal_bundle(std::size_t pad_to, DatagramBatch& out);
  void seal(DatagramHeader header, BytesView body, DatagramBatch& out);
  bool has_counters(std::uint64_t count);

  std::unique_ptr<crypto::Aead> aead_;
  std::uint32_t receiver_index_;
  Epoch epoch_;
  std::size_t capacity_;  // plaintext bytes of one datagram
  std::uint64_t max_datagrams_;
  std::uint64_t next_counter_ = 0;
  std::size_t bundle_bytes_ = 0;  // filled part of scratch_
  std::uint64_t bundle_frames_ = 0;
  Bytes scratch_;  // the open bundle, a message, or a padded last fragment; one at a time
  SealerCounters counters_;
};

}  // namespace godwit::wire

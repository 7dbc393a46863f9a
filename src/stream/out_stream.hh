#pragma once
// The sending end of one stream: bytes from its writer, kept until the peer's consumer has them.
//
//      acked            sent            offered          acked + window
//   -----|-- in flight --|--- unsent -----|----- room ------|
//
// A lane that died moves `sent` back to what the peer has received; nothing else changes.
#include <optional>

#include "stream/byte_ring.hh"
#include "stream/stream_hash.hh"
#include "stream/transfer_frame.hh"

namespace godwit::stream {

class OutStream final {
 public:
  OutStream(std::size_t window, std::size_t unsent_limit);

  // Writer's side. space(): contiguous room; empty: not now. commit(): `count` bytes of it are
  // filled.
  MutableBytes space();
  void commit(std::size_t count);
  void end();  // no more bytes will come

  // Lane's side.
  bool has_data() const { return sent_ < offered_; }
  bool wants_end() const { return ended_ && !end_sent_ && sent_ == offered_; }
  // DATA of the next at most `most` bytes, as sent from now on; its payload stays at payload().
  FrameHeader next_data(StreamId id, std::size_t most);
  void append_end(StreamId id, Bytes& out);
  BytesView payload(std::uint64_t position, std::size_t most) const {
    return ring_.at(position, most);
  }

  // ACK: false when it claims bytes never sent or takes back what was acknowledged.
  bool acknowledge(std::uint64_t delivered, bool ended);
  // HELLO of a new lane; false when the peer's position is not one that this side can go on from.
  bool resume_from(std::uint64_t received, bool ended);

  std::uint64_t offered() const { return offered_; }
  std::uint64_t sent() const { return sent_; }
  std::uint64_t acked() const { return acked_; }
  std::uint64_t resent() const { return resent_; }
  bool ended() const { return ended_; }
  bool end_acked() const { return end_acked_; }

 private:
  std::size_t unsent_limit_;
  ByteRing ring_;
  StreamHash hash_;
  std::uint64_t acked_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t high_ = 0;  // the most that was ever sent
  std::uint64_t offered_ = 0;
  std::uint64_t resent_ = 0;
  bool ended_ = false;
  bool end_sent_ = false;
  bool end_acked_ = false;
};

}  // namespace godwit::stream

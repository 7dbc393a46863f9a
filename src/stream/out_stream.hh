#pragma once
// The sending end of one stream: bytes from its writer, kept until the peer's consumer has them.
//
//      acked            sent            offered          acked + window
//   -----|-- in flight --|--- unsent -----|----- room ------|
//
// What was on a lane that died, and may not have arrived, is sent again before anything else.
#include "stream/byte_ring.hh"
#include "stream/intervals.hh"
#include "stream/stream_hash.hh"
#include "stream/transfer_frame.hh"

namespace godwit::stream {

class OutStream final {
 public:
  OutStream(std::size_t window, std::size_t unsent_limit);

  // Writer's side. space(): contiguous room; empty: not now. commit(): `count` bytes of it are
  // filled. Bytes from `keep_from` on stay where they are, acknowledged or not.
  MutableBytes space(std::uint64_t keep_from);
  void commit(std::size_t count);
  void end();  // no more bytes will come

  // Lane's side.
  bool has_data() const { return !again_.empty() || sent_ < offered_; }
  bool wants_end() const { return ended_ && !end_sent_ && !has_data(); }
  // DATA of at most `most` bytes, as sent from now on; its payload stays at payload().
  FrameHeader next_data(StreamId id, std::size_t most);
  void append_end(StreamId id, Bytes& out);
  BytesView payload(std::uint64_t position, std::size_t most) const {
    return ring_.at(position, most);
  }

  // These bytes, or the END, were on a lane that died.
  void lost(std::uint64_t from, std::uint64_t to);
  void end_lost();

  // ACK: false when it claims what was never sent. One from another lane may come late: it says
  // nothing then.
  bool acknowledge(std::uint64_t delivered, bool ended);
  // HELLO of a new lane: not to be sent again; false when this was never sent.
  bool received(std::uint64_t position, bool ended);

  std::uint64_t offered() const { return offered_; }
  std::uint64_t sent() const { return sent_ - again_.bytes(); }
  std::uint64_t acked() const { return acked_; }
  std::uint64_t resent() const { return resent_; }
  bool ended() const { return ended_; }
  bool end_acked() const { return end_acked_; }

 private:
  std::size_t unsent_limit_;
  ByteRing ring_;
  StreamHash hash_;
  std::uint64_t acked_ = 0;
  std::uint64_t sent_ = 0;  // at least once
  Intervals again_;         // of these, to be sent again
  std::uint64_t offered_ = 0;
  std::uint64_t resent_ = 0;
  bool ended_ = false;
  bool end_sent_ = false;
  bool end_acked_ = false;
};

}  // namespace godwit::stream

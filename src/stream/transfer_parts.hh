#pragma once
// The parts that a Transfer owns: two kinds of ends, and lanes; shared by its source files only.
#include <deque>

#include "stream/frame_reader.hh"
#include "stream/transfer.hh"

namespace godwit::stream {

struct Transfer::Out {
  explicit Out(const StreamSpec& spec_) : spec(spec_), stream(spec_.window, spec_.unsent_limit) {}
  StreamSpec spec;
  OutStream stream;
  bool told = false;       // the sink, of the end's acknowledgement
  std::uint64_t turn = 0;  // when it last had one
};

struct Transfer::In {
  explicit In(const StreamSpec& spec_) : spec(spec_), stream(spec_.window) {}
  StreamSpec spec;
  InStream stream;
  bool blocked = false;     // the consumer took less than it was given
  std::uint64_t acked = 0;  // what the peer was told last
  bool told_end = false;    // so was END's verification
  std::optional<Instant> ack_due;
};

struct Transfer::Lane {
  struct Payload {  // the rest of a DATA frame whose header was sent
    Out* out = nullptr;
    std::uint64_t position = 0;
    std::size_t left = 0;
  };
  struct Sent {  // and not acknowledged; END where it is empty
    Out* out = nullptr;
    std::uint64_t from = 0, to = 0;
    bool is_end() const { return from == to; }
    bool is_acked() const { return is_end() ? out->stream.end_acked() : out->stream.acked() >= to; }
  };

  bool greeted = false;  // HELLO came
  FrameReader reader;
  Bytes small;  // whole small frames and DATA headers on their way to the lane
  std::size_t small_taken = 0;
  Payload payload;
  std::deque<Sent> sent;
  std::vector<std::uint64_t> acked_before;  // of each of the outgoing streams, when it came up
  bool waits_for_tokens = false;
  Instant last_heard{}, last_ping{};
  std::uint64_t pings = 0;            // number of the last
  std::optional<std::uint64_t> pong;  // still to be answered
};

}  // namespace godwit::stream

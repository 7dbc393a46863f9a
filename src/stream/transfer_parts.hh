#pragma once
// The two kinds of ends that a Transfer owns; shared by its source files only.
#include "stream/transfer.hh"

namespace godwit::stream {

struct Transfer::Out {
  explicit Out(const StreamSpec& spec_) : spec(spec_), stream(spec_.window, spec_.unsent_limit) {}
  StreamSpec spec;
  OutStream stream;
  bool told = false;  // the sink, of the end's acknowledgement
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

}  // namespace godwit::stream

#pragma once
// Keeps a bulk connection from drowning the wires that share its path: BBR where the kernel has it,
// little unsent data in the kernel, and a rate just below what the path carries (stream/pacer.hh).
// For a lane's sender, and for both legs of a connection that this host relays. Control thread.
#include "os/byte_stream.hh"
#include "os/loop.hh"
#include "stream/pacer.hh"
#include "stream/recent_most.hh"

namespace godwit::agent {

// How many connections fill a path: one with BBR, which a lost segment does not slow down; without
// it several share the loss.
std::size_t lanes_to_fill_a_path();

class PacedSocket final {
 public:
  // Paces the TCP connection at the bottom of `stream` (TLS, or TLS inside TLS), one of `of` that
  // carry the same; does nothing for what is not TCP. `stream` must outlive it.
  PacedSocket(os::Loop& loop, os::ByteStream& stream, std::size_t of = 1);

  // Something was written. Nobody looks at a connection that has long been silent.
  void wrote();
  // The most that was sent and not acknowledged in order within the last kMemory or two: more than
  // the path's measure where a lost segment holds up what is behind it.
  ByteCount in_network() const { return unacknowledged_.most(); }
  static constexpr Nanoseconds kMemory = milliseconds(500);
  // The most that TCP measured lately, also in the bursts of a sender that had little to send.
  BitRate delivered() const { return pacer_.delivered(); }

 private:
  void pace();

  os::Loop& loop_;
  const os::Fd* socket_;
  stream::Pacer pacer_;
  stream::RecentMost<ByteCount> unacknowledged_{kMemory};
  Instant wrote_at_{};
  bool pacing_ = false;
  os::Loop::Timer timer_;
};

}  // namespace godwit::agent

#pragma once
// The in-memory double of a connected pair of ByteStreams. Bytes and callbacks move only in step(),
// in a fixed order, so a test decides what happens when; the pipe is bounded, so back-pressure is
// real; cut() breaks the connection as a lost link would.
//
//   MemoryLink link;
//   Thing a(link.take_a()), b(link.take_b());
//   link.settle();                      // until neither end has anything to say
#include <memory>

#include "os/byte_stream.hh"

namespace godwit::os {

class MemoryLink final {
 public:
  static constexpr std::size_t kDefaultCapacity = 64 * 1024;  // bytes in flight, each direction

  explicit MemoryLink(std::size_t capacity = kDefaultCapacity);
  ~MemoryLink();
  MemoryLink(const MemoryLink&) = delete;
  MemoryLink& operator=(const MemoryLink&) = delete;

  // Each end once. The ends may outlive the link, which then is silent.
  std::unique_ptr<ByteStream> take_a();
  std::unique_ptr<ByteStream> take_b();

  // Calls what is due at a, then at b, one callback of each kind at most. True if any was called.
  bool step();
  // Steps until nothing is due; CHECKs that this ends within `limit` steps.
  void settle(int limit = 100'000);
  // Both ends see closed(reason); what is in the pipe is lost.
  void cut(std::string reason = "the link was cut");
  // While stalled nothing written arrives: the far end reads only what it had. Bytes already in the
  // pipe stay; the writer fills it up and is held back.
  void stall(bool stalled);
  // Bytes written by a (or b) that the other has not read.
  std::size_t in_flight_from_a() const;
  std::size_t in_flight_from_b() const;

 private:
  struct End;
  struct Shared;
  class Stream;
  std::shared_ptr<Shared> shared_;
};

}  // namespace godwit::os

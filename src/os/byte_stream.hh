#pragma once
// A reliable, ordered, bidirectional stream of bytes with back-pressure: the one shape in which
// TCP, unix sockets, TLS over either, and a relayed path meet the code above. Non-blocking; all
// calls and callbacks happen in the owner's loop thread. The in-memory double is
// os/memory_stream.hh.
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.hh"
#include "base/result.hh"

namespace godwit::os {

class ByteStream {
 public:
  // Each callback may be called only while the stream lives; a callback may destroy the stream.
  struct Events {
    // There may be something to read: call read() until it returns 0.
    std::move_only_function<void()> readable;
    // Room again, after write() took less than it was given.
    std::move_only_function<void()> writable;
    // The stream ended: empty text after an orderly end by the peer, else the reason. Called once;
    // bytes that arrived before it can still be read inside the callback.
    std::move_only_function<void(std::string reason)> closed;
  };

  virtual ~ByteStream() = default;
  // Until this is called nothing is read.
  virtual void start(Events events) = 0;
  // Bytes read into `into`, 0 when there are none now.
  virtual std::size_t read(MutableBytes into) = 0;
  // Bytes taken from `from`, which may be fewer than given; then `writable` follows.
  virtual std::size_t write(BytesView from) = 0;
  // The same with a descriptor that goes along with the first byte taken: over unix sockets, the
  // others take nothing.
  virtual std::size_t write_with(BytesView, int) { return 0; }
  // Ends the sending direction after what was written (half close); reading goes on.
  virtual void finish() = 0;
  // For messages: "10.0.1.2:4747", "unix:/run/...".
  virtual std::string peer() const = 0;
};

}  // namespace godwit::os

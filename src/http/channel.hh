#pragma once
// A connected stream as the blocking client uses it: a unix socket here, TLS over TCP in cli/.
#include <functional>
#include <memory>
#include <string>

#include "base/bytes.hh"
#include "base/result.hh"
#include "os/fd.hh"

namespace godwit::http {

class Channel {
 public:
  virtual ~Channel() = default;
  // Readable when receive() may have something: call that until it returns 0 before waiting again.
  virtual const os::Fd& fd() const = 0;
  virtual Result<> send(BytesView bytes) = 0;          // blocks until all is sent
  virtual std::size_t receive(MutableBytes into) = 0;  // never blocks; 0: nothing now
  virtual bool ended() const = 0;                      // nothing more will come
  virtual std::string why_ended() const = 0;           // empty: in order, or not known
  virtual void finish() = 0;                           // ends our direction
};

// How to reach an agent, and its name for messages.
struct Dialler {
  std::string where;  // "/run/godwit/godwitd.sock", "e1 at 192.0.2.1:4747"
  std::function<Result<std::unique_ptr<Channel>>()> dial;
};

Dialler unix_dialler(const std::string& path);

}  // namespace godwit::http

#pragma once
// Joins two byte streams: what one brings goes out at the other, with back-pressure and half
// closes passed on. A relay's whole data path; it looks at no byte.
#include <array>
#include <functional>
#include <memory>

#include "os/byte_stream.hh"
#include "os/loop.hh"

namespace godwit::session {

class Splice final {
 public:
  static constexpr std::size_t kBuffer = 64 * 1024;  // per direction

  // `seen`: counts what passes. `ended`: both directions ended, or one stream failed; called once,
  // and may destroy the Splice.
  Splice(os::Loop& loop, std::unique_ptr<os::ByteStream> a, std::unique_ptr<os::ByteStream> b,
         std::move_only_function<void(BytesView)> seen,
         std::move_only_function<void(std::string reason)> ended);
  Splice(const Splice&) = delete;
  Splice& operator=(const Splice&) = delete;

 private:
  struct Way {
    os::ByteStream& from;
    os::ByteStream& to;
    std::vector<std::byte> buffer;
    std::size_t at = 0;
    std::size_t held = 0;
    bool from_ended = false;
    bool finished = false;
    os::Loop::Timer turn;
  };

  void start(Way& out, Way& in);
  void pump(Way& way);
  void on_closed(Way& out, const std::string& reason);
  void end(const std::string& reason);

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> a_;
  std::unique_ptr<os::ByteStream> b_;
  std::move_only_function<void(BytesView)> seen_;
  std::move_only_function<void(std::string)> ended_;
  Way there_;
  Way back_;
  os::Loop::Timer ending_;
  bool over_ = false;
};

}  // namespace godwit::session

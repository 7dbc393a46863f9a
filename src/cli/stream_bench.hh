#pragma once
// Measures codings on a recorded migration stream: what each leaves of it, the CPU time that it
// takes, and whether the stream comes out again bit for bit. Blocks; one thread.
#include <functional>
#include <string>

#include "base/units.hh"
#include "cli/stream_coding.hh"
#include "os/fd.hh"
#include "stream/qemu_parser.hh"

namespace godwit::cli {

// Bytes of the file that were passed so far.
using Passed = std::function<void(std::uint64_t)>;

class StreamFile final {
 public:
  // Fails, with the file's name, if its first bytes are not those of a migration stream.
  static Result<StreamFile> open(const std::string& path);

  const std::string& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  // All of it, in order. What `take` says ends it.
  Result<> read(const std::function<Result<>(BytesView)>& take) const;
  // Fails if there is no page in it.
  Result<stream::QemuStreamStats> survey(const Passed& passed) const;

 private:
  StreamFile(std::string path, os::Fd fd, std::uint64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}

  std::string path_;
  os::Fd fd_;
  std::uint64_t size_ = 0;
};

struct Measured {
  std::uint64_t raw = 0, coded = 0;        // bytes
  Nanoseconds encode_cpu{}, decode_cpu{};  // of this thread
};
// Encodes and decodes in turns, as a chunk is read. Fails if what is decoded is not the file.
Result<Measured> measure(Coding& coding, const StreamFile& file, const Passed& passed);

}  // namespace godwit::cli

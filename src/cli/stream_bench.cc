#include "cli/stream_bench.hh"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "stream/qemu_format.hh"

namespace godwit::cli {
namespace {

// As much as the agent gives its encoder at most.
constexpr std::size_t kRead = codec::kBatchBytes;
constexpr std::size_t kHeader = 2 * sizeof(std::uint32_t);

Nanoseconds cpu_time() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return seconds(now.tv_sec) + Nanoseconds(now.tv_nsec);
}

Bytes header() {
  Bytes bytes;
  Writer(bytes).u32(stream::qemu_format::kMagic).u32(stream::qemu_format::kVersion);
  return bytes;
}

// What is wrong with a file, and what it should be.
std::unexpected<Error> no_stream(const std::string& path, const std::string& why) {
  return fail(
      "{} is no recorded migration stream: {}; expected is what QEMU 7.2 or newer writes "
      "(\"QEVM\", "
      "version 3, then sections with pages): record one with godwit debug stream record",
      path, why);
}

struct Nothing final : stream::QemuSink {
  void opaque(BytesView) override {}
  void page(const stream::PageRecord&) override {}
  void mark(const stream::QemuMark&) override {}
};

// Compares what is decoded with what was read, which comes first.
class Comparison final {
 public:
  void expect(BytesView raw) { append(expected_, raw); }
  bool take(BytesView decoded) {
    if (decoded.size() > expected_.size() ||
        !std::equal(decoded.begin(), decoded.end(), expected_.begin())) {
      return false;
    }
    expected_.erase(expected_.begin(),
                    expected_.begin() + static_cast<std::ptrdiff_t>(decoded.size()));
    passed_ += decoded.size();
    return true;
  }
  bool complete() const { return expected_.empty(); }
  std::uint64_t passed() const { return passed_; }

 private:
  Bytes expected_;
  std::uint64_t passed_ = 0;
};

}  // namespace

Result<StreamFile> StreamFile::open(const std::string& path) {
  os::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status{};
  if (!fd || ::fstat(fd.number(), &status) != 0) return fail("{}", errno_text("open " + path));
  if (!S_ISREG(status.st_mode)) return no_stream(path, "it is not a regular file");
  StreamFile file(path, std::move(fd), static_cast<std::uint64_t>(status.st_size));
  Bytes first(kHeader);
  const auto got = ::pread(file.fd_.number(), first.data(), first.size(), 0);
  if (got < 0) return fail("{}", errno_text("read " + path));
  first.resize(static_cast<std::size_t>(got));
  if (first.empty()) return no_stream(path, "it is empty");
  if (first != header()) return no_stream(path, "it begins with " + to_hex(first));
  return file;
}

Result<> StreamFile::read(const std::function<Result<>(BytesView)>& take) const {
  Bytes buffer(kRead);
  for (std::uint64_t at = 0; at < size_;) {
    const auto got = ::pread(fd_.number(), buffer.data(), buffer.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("{}", errno_text("read " + path_));
    if (got == 0) return fail("{} became shorter while it was read", path_);
    if (auto taken = take(BytesView(buffer).first(static_cast<std::size_t>(got))); !taken) {
      return taken;
    }
    at += static_cast<std::uint64_t>(got);
  }
  return {};
}

Result<stream::QemuStreamStats> StreamFile::survey(const Passed& passed) const {
  Nothing nothing;
  stream::QemuParser parser(nothing);
  const auto done = read([&](BytesView chunk) -> Result<> {
    parser.push(chunk);
    passed(parser.stats().bytes);
    return {};
  });
  if (!done) return std::unexpected(done.error());
  parser.finish();
  if (parser.stats().pages + parser.stats().zero_pages == 0) {
    return no_stream(path_, fmt::format("there is no page in its {} bytes", size_));
  }
  return parser.stats();
}

Result<Measured> measure(Coding& coding, const StreamFile& file, const Passed& passed) {
  Measured measured;
  Comparison comparison;
  Bytes coded, raw;
  // Encodes, then decodes what came of it.
  const auto pass = [&](const auto& encode) -> Result<> {
    coded.clear();
    raw.clear();
    const Nanoseconds begun = cpu_time();
    encode();
    const Nanoseconds encoded = cpu_time();
    if (auto decoded = coding.decode(coded, raw); !decoded) return decoded;
    measured.encode_cpu += encoded - begun;
    measured.decode_cpu += cpu_time() - encoded;
    measured.coded += coded.size();
    if (!coding.decodes() || comparison.take(raw)) return {};
    return fail("what was decoded is not {} any more, after {} bytes", file.path(),
                comparison.passed());
  };
  auto done = file.read([&](BytesView chunk) {
    if (coding.decodes()) comparison.expect(chunk);
    measured.raw += chunk.size();
    const auto result = pass([&] { coding.encode(chunk, coded); });
    passed(measured.raw);
    return result;
  });
  if (done) done = pass([&] { coding.finish(coded); });
  if (!done) return std::unexpected(done.error());
  if (!comparison.complete()) {
    return fail("only {} bytes of {} were decoded", comparison.passed(), file.path());
  }
  return measured;
}

}  // namespace godwit::cli

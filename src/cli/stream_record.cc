#include "cli/stream_record.hh"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <ostream>

#include "base/units.hh"
#include "cli/progress.hh"
#include "os/fd.hh"

namespace godwit::cli {
namespace {

constexpr mode_t kOnlyOwner = 0600;
constexpr std::size_t kReceived = 64 * 1024;
constexpr std::size_t kMostOfFrame = 1024 * 1024;  // an agent's have 64 KiB
constexpr std::size_t kMostOfEnd = 64 * 1024;
// A QEMU that writes nothing for so long, or an agent that does not let go of it, hangs.
constexpr Nanoseconds kSilence = http::Client::kSilence;
constexpr int kPollMs = 200;
constexpr Nanoseconds kShowInterval = milliseconds(500);

// Its own file until keep(); removed otherwise.
class NewFile final {
 public:
  explicit NewFile(const std::string& path) : path_(path) {
    fd_ = os::Fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kOnlyOwner));
    if (!fd_ && errno == EEXIST) {
      throw Failure(
          ExitStatus::failed,
          fmt::format("{} exists already: a recording is not written over anything", path));
    }
    if (!fd_) throw Failure(ExitStatus::failed, errno_text("create " + path));
  }
  ~NewFile() {
    if (!kept_) ::unlink(path_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  void write(BytesView bytes) {
    while (!bytes.empty()) {
      const auto wrote = ::write(fd_.number(), bytes.data(), bytes.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) throw Failure(ExitStatus::failed, errno_text("write " + path_));
      bytes = bytes.subspan(static_cast<std::size_t>(wrote));
      size_ += static_cast<std::uint64_t>(wrote);
    }
  }
  std::uint64_t size() const { return size_; }
  // Only its first bytes; all is on the disk then.
  void keep(std::uint64_t size) {
    if (::ftruncate(fd_.number(), static_cast<off_t>(size)) != 0 || ::fsync(fd_.number()) != 0) {
      throw Failure(ExitStatus::failed, errno_text("write " + path_));
    }
    size_ = size;
    kept_ = true;
  }

 private:
  std::string path_;
  os::Fd fd_;
  std::uint64_t size_ = 0;
  bool kept_ = false;
};

// Where the rounds end.
struct Rounds final : stream::QemuSink {
  void opaque(BytesView) override {}
  void page(const stream::PageRecord&) override {}
  void mark(const stream::QemuMark& mark) override {
    if (mark.kind == stream::QemuMark::Kind::kRoundEnded) ends.push_back(mark.position);
  }
  std::vector<std::uint64_t> ends;
};

// The agent's frames: QEMU's bytes to `take`, then how it ended.
class Frames final {
 public:
  template <class Take>
  void push(BytesView bytes, Take take) {
    while (!bytes.empty()) {
      if (ended_) return append_end(bytes);
      if (left_ == 0) {
        bytes = bytes.subspan(head(bytes));
        continue;
      }
      const BytesView part = bytes.first(std::min(left_, bytes.size()));
      take(part);
      left_ -= part.size();
      bytes = bytes.subspan(part.size());
    }
  }
  // How it ended, if that came whole.
  std::optional<json> end() const {
    auto told = json::parse(as_text(end_), nullptr, false);
    return told.is_object() ? std::optional(std::move(told)) : std::nullopt;
  }

 private:
  // Of a frame's count; returns how much it took.
  std::size_t head(BytesView bytes) {
    const std::size_t took = std::min(sizeof(std::uint32_t) - head_.size(), bytes.size());
    append(head_, bytes.first(took));
    if (head_.size() < sizeof(std::uint32_t)) return took;
    left_ = from_big_endian<std::uint32_t>(head_.data());
    head_.clear();
    ended_ = left_ == 0;
    if (left_ > kMostOfFrame) throw not_understood();
    return took;
  }
  void append_end(BytesView bytes) {
    append(end_, bytes);
    if (end_.size() > kMostOfEnd) throw not_understood();
  }
  static Failure not_understood() {
    return {ExitStatus::failed,
            "the agent's recording is not understood (is it of another version?)"};
  }

  Bytes head_, end_;
  std::size_t left_ = 0;
  bool ended_ = false;
};

class Recording final {
 public:
  Recording(const Context& context, const RecordOptions& options)
      : context_(context),
        options_(options),
        file_(options.file),
        interrupt_(options.time, true),
        progress_(context.io),
        begun_(context.io.clock.now()),
        heard_(begun_) {}

  json run() {
    auto upgraded =
        context_.client().upgrade(path_of("vms", options_.vm, "recording"), "migration-stream");
    if (!upgraded) throw Failure(ExitStatus::failed, upgraded.error().text);
    channel_ = std::move(upgraded->channel);
    take(upgraded->early);
    while (receive()) show();
    return conclude();
  }

 private:
  // False: the agent has ended it.
  bool receive() {
    std::array<std::byte, kReceived> buffer;
    while (const std::size_t got = channel_->receive(buffer)) {
      take(BytesView(buffer).first(got));
      if (look()) return true;
    }
    if (channel_->ended()) return false;
    wait();
    look();
    return true;
  }

  // A deadline stays readable: once there is enough only signals count, which are asked for.
  void wait() {
    std::array<pollfd, 2> watched = {
        pollfd{.fd = channel_->fd().number(), .events = POLLIN, .revents = 0},
        pollfd{.fd = enough_ ? -1 : interrupt_.fd().number(), .events = POLLIN, .revents = 0}};
    if (::poll(watched.data(), watched.size(), kPollMs) > 0) {
      heard_ = context_.io.clock.now();
    } else if (context_.io.clock.now() - heard_ > kSilence) {
      throw Failure(ExitStatus::failed, given_up("nothing came for " + to_text(kSilence)));
    }
  }

  // True: something has just ended it.
  bool look() {
    const auto cause = interrupt_.take();
    if (cause == Interrupt::Cause::signal && std::exchange(interrupted_, true)) {
      throw Failure(ExitStatus::failed, given_up("interrupted twice"));
    }
    const bool has_rounds = options_.rounds > 0 && rounds_.ends.size() >= options_.rounds;
    if (enough_ || (cause == Interrupt::Cause::none && !has_rounds)) return false;
    enough_ = true;
    channel_->finish();  // then the agent lets go of QEMU, and says so
    return true;
  }

  void take(BytesView bytes) {
    frames_.push(bytes, [this](BytesView part) {
      if (enough_) return;
      parser_.push(part);
      file_.write(part);
    });
  }

  void show() {
    const Instant now = context_.io.clock.now();
    if (now - shown_ < kShowInterval) return;
    shown_ = now;
    const double time = std::chrono::duration<double>(now - begun_).count();
    json told = {{"phase", fmt::format("recording  {}", to_text(ByteCount{file_.size()}))},
                 {"round", rounds_.ends.size() + 1},
                 {"rate_bps", static_cast<double>(file_.size()) * 8 / std::max(time, 1e-3)}};
    if (options_.time > Nanoseconds(0)) {
      told["eta_s"] = std::chrono::duration<double>(options_.time).count() - time;
    }
    progress_.show(told);
  }

  json conclude() {
    if (interrupted_) throw Failure(ExitStatus::failed, given_up("interrupted"));
    const auto end = frames_.end();
    if (!end) {
      const std::string why = channel_->why_ended();
      throw Failure(ExitStatus::failed,
                    given_up("the agent closed the connection" + (why.empty() ? "" : ": " + why)));
    }
    const bool still = end->value("outcome", "") == "still";
    const std::string error = end->value("error", "");
    if (!error.empty() || !(enough_ || still)) {
      throw Failure(ExitStatus::failed, given_up(error.empty() ? "it ended early" : error));
    }
    const bool cut = options_.rounds > 0 && rounds_.ends.size() >= options_.rounds;
    file_.keep(cut ? rounds_.ends[options_.rounds - 1] : file_.size());
    return {{"vm", options_.vm},
            {"file", options_.file},
            {"bytes", file_.size()},
            {"rounds", cut ? options_.rounds : rounds_.ends.size()},
            {"paused_ms", end->value("paused_ms", 0.0)}};
  }

  std::string given_up(const std::string& why) const {
    return fmt::format("vm {} was not recorded: {}; {} is removed", options_.vm, why,
                       options_.file);
  }

  const Context& context_;
  const RecordOptions& options_;
  NewFile file_;
  Interrupt interrupt_;
  Progress progress_;
  std::unique_ptr<http::Channel> channel_;
  Frames frames_;
  Rounds rounds_;
  stream::QemuParser parser_{rounds_};
  Instant begun_, heard_, shown_{};
  bool enough_ = false;
  bool interrupted_ = false;
};

}  // namespace

json record_stream(const Context& context, const RecordOptions& options) {
  return Recording(context, options).run();
}

}  // namespace godwit::cli

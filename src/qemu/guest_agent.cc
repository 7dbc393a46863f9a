#include "qemu/guest_agent.hh"

#include <algorithm>
#include <array>
#include <utility>

#include "base/base64.hh"
#include "qemu/json.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;

// 0xff is in no JSON: the agent's parser drops what came before, and so do we
// (guest-sync-delimited).
constexpr char kDelimiter = '\xff';
constexpr std::uint64_t kSyncId = 4747;
constexpr Nanoseconds kAskStatusAgain = milliseconds(50);
constexpr std::size_t kMostQuoted = 300;  // bytes of the guest's words in an error of ours

// Nothing, where a guest says what is no base64.
std::string output(const json& reply, const char* key) {
  return from_base64(text_at(reply, key)).value_or("");
}

std::string why_no_programs(const std::string& error) {
  if (!error.contains("disabled") && !error.contains("not been found")) return error;
  return error +
         ": allow guest-exec and guest-exec-status in the guest (block-rpcs or allow-rpcs of "
         "/etc/qemu/qemu-ga.conf, FILTER_RPC_ARGS of /etc/sysconfig/qemu-ga) and restart "
         "qemu-guest-agent";
}

}  // namespace

GuestAgent::GuestAgent(os::Loop& loop, std::unique_ptr<os::ByteStream> stream)
    : loop_(loop), stream_(std::move(stream)) {
  stream_->start({.readable = [this] { read(); },
                  .writable = [this] { flush(); },
                  .closed =
                      [this](const std::string& reason) {
                        end(fmt::format("the channel to the guest's agent closed: {}", reason));
                      }});
  output_ += kDelimiter;
  send(json({{"execute", "guest-sync-delimited"}, {"arguments", {{"id", kSyncId}}}}).dump());
}

GuestAgent::~GuestAgent() = default;

void GuestAgent::execute(std::string_view command, json arguments, Reply reply) {
  json request = {{"execute", command}};
  if (!arguments.empty()) request["arguments"] = std::move(arguments);
  waiting_.push_back({.line = request.dump(-1, ' ', false, json::error_handler_t::replace),
                      .reply = std::move(reply)});
  if (ended_.empty() && waiting_.size() <= kMaxGuestAgentPending) return next();
  // Through the loop, so that `reply` is never called from inside execute().
  const std::string why = ended_.empty() ? "too many commands wait for the guest's agent" : ended_;
  end_timer_ = loop_.after(Nanoseconds(0), [this, why] { end(why); });
}

void GuestAgent::next() {
  if (!synchronized_ || is_asked_ || waiting_.empty()) return;
  is_asked_ = true;
  send(waiting_.front().line);
}

void GuestAgent::send(const std::string& line) {
  asked_ = loop_.now();
  output_ += line + "\n";
  timer_ = loop_.after(kGuestAgentTimeout, [this] {
    end(
        fmt::format("no answer of qemu-guest-agent within {}: install and start qemu-guest-agent "
                    "in the guest",
                    to_text(kGuestAgentTimeout)));
  });
  flush();
}

void GuestAgent::flush() {
  const std::size_t taken = stream_->write(as_bytes(output_));
  output_.erase(0, taken);
}

void GuestAgent::read() {
  if (!ended_.empty()) return;
  const std::weak_ptr<bool> alive = alive_;
  std::array<std::byte, 4096> chunk;
  while (const std::size_t count = stream_->read(chunk)) {
    input_ += as_text(BytesView(chunk).first(count));
    if (const std::size_t at = input_.rfind(kDelimiter); at != std::string::npos) {
      input_.erase(0, at + 1);
    }
    for (std::size_t stop = 0; (stop = input_.find('\n')) != std::string::npos;) {
      const std::string line = input_.substr(0, stop);
      input_.erase(0, stop + 1);
      take_line(line);
      if (alive.expired() || !ended_.empty()) return;
    }
    if (input_.size() > kMaxGuestAnswer) {
      return end(fmt::format("the guest's agent answers with more than {}",
                             to_text(ByteCount{kMaxGuestAnswer})));
    }
  }
}

void GuestAgent::take_line(std::string_view line) {
  const json answer = json::parse(line, nullptr, false);
  if (!synchronized_) {
    if (unsigned_at(answer, "return") != kSyncId) return;  // of an earlier conversation
    timer_.reset();
    synchronized_ = true;
    return next();
  }
  if (!is_asked_) return;
  if (!answer.is_object()) return end("the guest's agent answers with what is no JSON object");
  if (const json& error = member(answer, "error"); error.is_object()) {
    return answered(fail("{}", text_at(error, "desc").substr(0, kMostQuoted)));
  }
  answered(member(answer, "return"));
}

void GuestAgent::answered(Result<json> result) {
  timer_.reset();
  is_asked_ = false;
  Request request = std::move(waiting_.front());
  waiting_.pop_front();
  const std::weak_ptr<bool> alive = alive_;
  request.reply(std::move(result));
  if (!alive.expired()) next();
}

void GuestAgent::end(std::string reason) {
  timer_.reset();
  ended_ = std::move(reason);
  const std::weak_ptr<bool> alive = alive_;
  for (Request& request : std::exchange(waiting_, {})) {
    request.reply(std::unexpected(Error{ended_}));
    if (alive.expired()) return;
  }
}

struct GuestAgent::Run {
  std::string path;
  std::uint64_t pid = 0;
  Instant deadline;
  Nanoseconds limit;
  Ran ran;
  os::Loop::Timer again;
};

void GuestAgent::run(std::string path, std::vector<std::string> arguments, Nanoseconds limit,
                     Ran answer) {
  json request = {{"path", path}, {"arg", std::move(arguments)}, {"capture-output", true}};
  const auto run =
      std::make_shared<Run>(std::move(path), 0, loop_.now() + limit, limit, std::move(answer));
  runs_.insert(run);
  execute("guest-exec", std::move(request), [this, run](const Result<json>& reply) {
    if (!reply) return ran(run, fail("{}", why_no_programs(reply.error().text)));
    run->pid = unsigned_at(*reply, "pid");
    ask_status(run);
  });
}

void GuestAgent::ask_status(const std::shared_ptr<Run>& run) {
  execute("guest-exec-status", {{"pid", run->pid}}, [this, run](const Result<json>& reply) {
    if (!reply) return ran(run, fail("{}", why_no_programs(reply.error().text)));
    if (flag_at(*reply, "exited")) {
      const auto code = std::min<std::uint64_t>(unsigned_at(*reply, "exitcode"), 255);
      // As a shell counts those that a signal ended.
      const auto signal = std::min<std::uint64_t>(unsigned_at(*reply, "signal"), 127);
      return ran(run, GuestOutput{.exit_code = static_cast<int>(signal > 0 ? 128 + signal : code),
                                  .out = output(*reply, "out-data"),
                                  .err = output(*reply, "err-data")});
    }
    if (loop_.now() >= run->deadline) {
      return ran(run, fail("has not ended within {}", to_text(run->limit)));
    }
    run->again = loop_.after(kAskStatusAgain, [this, weak = std::weak_ptr(run)] {
      if (const auto same = weak.lock()) ask_status(same);
    });
  });
}

void GuestAgent::ran(const std::shared_ptr<Run>& run, Result<GuestOutput> result) {
  runs_.erase(run);
  if (!result) result = fail("{} in the guest: {}", run->path, result.error().text);
  run->ran(std::move(result));
}

}  // namespace godwit::qemu

#pragma once
// Client of qemu-guest-agent in a guest: JSON objects, one per line, over its channel (QEMU,
// docs/interop/qemu-ga-ref). A conversation begins with guest-sync-delimited, which drops what was
// left of an earlier one. QEMU's end of the channel takes one client at a time: a second one's
// first answer waits until the first is destroyed.
//
// The guest is not trusted: what it sends is bounded and waited for with a limit. After an answer
// that did not come or was none, the conversation is over: everything fails with that error.
#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "base/units.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"

namespace godwit::qemu {

// Of each answer. An agent that sets the clock also writes the RTC, which waits for its next
// second.
inline constexpr Nanoseconds kGuestAgentTimeout = seconds(5);
// Bytes of one answer, and so of what a program that was run there can say.
inline constexpr std::size_t kMaxGuestAnswer = 64 << 10;
inline constexpr std::size_t kMaxGuestAgentPending = 16;

// What a program in the guest said and how it ended.
struct GuestOutput {
  int exit_code = 0;
  std::string out, err;
};

class GuestAgent final {
 public:
  using Reply = std::move_only_function<void(Result<nlohmann::json>)>;
  using Ran = std::move_only_function<void(Result<GuestOutput>)>;

  GuestAgent(os::Loop& loop, std::unique_ptr<os::ByteStream> stream);
  ~GuestAgent();
  GuestAgent(const GuestAgent&) = delete;
  GuestAgent& operator=(const GuestAgent&) = delete;

  // One after the other, each when the one before is answered. `reply` gets the "return" value, or
  // an error: the agent's own words, the time-out, the closed channel. It is called once, from the
  // loop, never from inside execute(), and not at all when this is destroyed first, which it may
  // do itself.
  void execute(std::string_view command, nlohmann::json arguments, Reply reply);
  // Runs a program in the guest (guest-exec) to its end, `limit` at most: what runs longer is left
  // alone there. An exit code other than 0 is no error.
  void run(std::string path, std::vector<std::string> arguments, Nanoseconds limit, Ran answer);

  // When the request that is now answered was sent.
  Instant asked() const { return asked_; }
  os::Loop& loop() { return loop_; }

 private:
  struct Request {
    std::string line;
    Reply reply;
  };
  struct Run;

  void send(const std::string& line);
  void next();
  void flush();
  void read();
  void take_line(std::string_view line);
  void answered(Result<nlohmann::json> result);
  void end(std::string reason);
  void ask_status(const std::shared_ptr<Run>& run);
  void ran(const std::shared_ptr<Run>& run, Result<GuestOutput> result);

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> stream_;
  std::string input_, output_;
  std::deque<Request> waiting_;
  bool synchronized_ = false, is_asked_ = false;
  std::string ended_;  // why
  Instant asked_{};
  std::set<std::shared_ptr<Run>> runs_;
  os::Loop::Timer timer_, end_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::qemu

#pragma once
// A blocking client of the API, for the command line: one connection per call, one thread. Errors
// name the agent and what to do about it.
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "base/units.hh"
#include "http/channel.hh"
#include "http/sse.hh"
#include "os/fd.hh"

namespace godwit::http {

struct Reply {
  int status = 0;
  nlohmann::json body;  // null when the answer was not JSON
  bool ok() const { return status >= 200 && status < 300; }
};

// How a stream of events came to its end.
enum class EventsEnd {
  stopped,      // the callback said so
  closed,       // the server ended it, orderly or by dying
  interrupted,  // the interrupt descriptor became readable
};

// A connection after its upgrade: raw bytes both ways, the first of which were already read.
struct Upgraded {
  std::unique_ptr<Channel> channel;
  Bytes early;
};

class Client final {
 public:
  // Time for a whole answer, and the longest silence of an event stream (three heartbeats).
  static constexpr Nanoseconds kRequestTime = seconds(60);
  static constexpr Nanoseconds kSilence = seconds(45);

  // `at`: the host of the fleet that the agent passes the requests on to; empty: its own.
  explicit Client(Dialler agent, std::string at = {})
      : agent_(std::move(agent)), at_(std::move(at)) {}
  explicit Client(const std::string& socket_path) : Client(unix_dialler(socket_path)) {}

  // `body` null sends none. An answer with an error status is a Reply, not an Error.
  Result<Reply> request(std::string_view method, std::string_view target,
                        const nlohmann::json& body = nullptr) const;
  // Calls `on_event` for each event until it returns false. A refusal (not 200) is an Error with
  // the server's text. `interrupt` may be null.
  Result<EventsEnd> events(std::string_view target,
                           const std::function<bool(const Event&)>& on_event,
                           const os::Fd* interrupt = nullptr) const;
  // Error when the server answers anything but 101; with its text, if it gave one.
  Result<Upgraded> upgrade(std::string_view target, std::string_view protocol) const;

 private:
  std::string target_at(std::string_view target) const;

  Dialler agent_;
  std::string at_;
};

}  // namespace godwit::http

#pragma once
// Server-sent events (WHATWG HTML, 9.2): "event: NAME\ndata: JSON\n\n"; a line that starts with a
// colon is a heartbeat.
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.hh"

namespace godwit::http {

struct Event {
  std::string name;  // "message" when the sender gave none
  std::string data;
  std::string id;  // empty when the sender gave none with this event
};

// `name` and `id` have no line break (CHECKed); an empty `id` is left out; each line of `data`
// becomes a data line.
std::string write_event(std::string_view name, std::string_view data, std::string_view id = {});
inline constexpr std::string_view kHeartbeat = ":\n\n";

// Incremental reader. An event beyond kMaxEventBytes sets the error and ends the reading.
class EventParser final {
 public:
  static constexpr std::size_t kMaxEventBytes = 4 * 1024 * 1024;

  // Calls `sink` for each event that these bytes complete; it returns false to stop there.
  void feed(BytesView input, const std::function<bool(const Event&)>& sink);
  bool ok() const { return ok_; }
  bool stopped() const { return stopped_; }

 private:
  void line(std::string_view text, const std::function<bool(const Event&)>& sink);

  std::string partial_;
  Event event_;
  bool has_data_ = false;
  bool ok_ = true;
  bool stopped_ = false;
};

}  // namespace godwit::http

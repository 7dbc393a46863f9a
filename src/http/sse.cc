#include "http/sse.hh"

#include <utility>

#include "base/check.hh"

namespace godwit::http {

std::string write_event(std::string_view name, std::string_view data, std::string_view id) {
  CHECK(!name.contains('\n') && !name.contains('\r'), "event name '{}'", name);
  CHECK(!id.contains('\n') && !id.contains('\r'), "event id '{}'", id);
  std::string out = id.empty() ? "" : fmt::format("id: {}\n", id);
  out += fmt::format("event: {}\n", name);
  for (;;) {
    const std::size_t end = data.find('\n');
    out += fmt::format("data: {}\n", data.substr(0, end));
    if (end == std::string_view::npos) break;
    data.remove_prefix(end + 1);
  }
  return out += "\n";
}

void EventParser::feed(BytesView input, const std::function<bool(const Event&)>& sink) {
  std::string_view text = as_text(input);
  while (ok_ && !stopped_ && !text.empty()) {
    const std::size_t end = text.find('\n');
    partial_ += text.substr(0, end);
    if (partial_.size() + event_.data.size() > kMaxEventBytes) ok_ = false;
    if (end == std::string_view::npos) return;
    text.remove_prefix(end + 1);
    if (partial_.ends_with('\r')) partial_.pop_back();
    line(std::exchange(partial_, {}), sink);
  }
}

void EventParser::line(std::string_view text, const std::function<bool(const Event&)>& sink) {
  if (text.empty()) {
    Event event = std::exchange(event_, {});
    if (!std::exchange(has_data_, false)) return;
    if (event.name.empty()) event.name = "message";
    stopped_ = !sink(event);
    return;
  }
  const std::size_t colon = std::min(text.find(':'), text.size());
  std::string_view value = text.substr(std::min(text.size(), colon + 1));
  if (value.starts_with(' ')) value.remove_prefix(1);
  const std::string_view field = text.substr(0, colon);
  if (field == "event") event_.name = value;
  if (field == "id") event_.id = value;
  if (field == "data") {
    if (std::exchange(has_data_, true)) event_.data += '\n';
    event_.data += value;
  }
}

}  // namespace godwit::http

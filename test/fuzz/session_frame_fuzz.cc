// Session messages from a hostile peer: the reader over a stream in odd pieces, the decoder, the
// JSON of the body. What decodes must encode to the same bytes.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "session/frame.hh"
#include "session/invite.hh"
#include "session/join_messages.hh"
#include "session/json_body.hh"

namespace {

using namespace godwit;

class Input final : public os::ByteStream {
 public:
  Input(BytesView bytes, std::size_t step) : rest_(bytes), step_(step) {}
  void start(Events) override {}
  std::size_t read(MutableBytes into) override {
    if (std::exchange(pause_, !pause_)) return 0;
    const std::size_t size = std::min({into.size(), step_, rest_.size()});
    std::copy_n(rest_.begin(), size, into.begin());
    rest_ = rest_.subspan(size);
    return size;
  }
  std::size_t write(BytesView) override { return 0; }
  void finish() override {}
  std::string peer() const override { return "fuzz"; }
  bool done() const { return rest_.empty(); }

 private:
  BytesView rest_;
  std::size_t step_;
  bool pause_ = false;
};

void examine(const session::Frame& frame) {
  Bytes again;
  session::encode(frame, again);
  const auto copy = session::decode(BytesView(again).subspan(4));
  CHECK(copy && copy->kind == frame.kind && copy->id == frame.id && copy->method == frame.method);
  CHECK(std::ranges::equal(copy->body, frame.body));
  const auto body = session::parse_json_body(frame.body);
  if (!body) return;
  const std::string text = session::json_text(*body);
  CHECK(session::parse_json_body(as_bytes(text)).has_value());
  (void)session::known_host_from_json(*body);
  (void)session::InviteToken::parse(session::text_member(*body, "secret"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const BytesView bytes = std::as_bytes(std::span(data, size));
  Input input(bytes.subspan(1), 1 + data[0]);
  session::FrameReader reader;
  for (;;) {
    const auto frame = reader.next(input);
    if (!frame || (!*frame && input.done())) break;
    if (*frame) examine(**frame);
  }
  return 0;
}

// What a false agent could answer to `godwit`: replies, and streams of events, whole and in pieces
// of the size that the first byte asks for. Understood alike, and bounded.
#include <algorithm>
#include <string>

#include "base/check.hh"
#include "http/codec.hh"
#include "http/sse.hh"

namespace {

using namespace godwit;

std::string replies(BytesView input, std::size_t piece) {
  http::ResponseParser parser;
  Bytes waiting;
  bool told = false;
  while (!input.empty() && !parser.refusal() && !parser.complete()) {
    const BytesView part = input.first(std::min(piece, input.size()));
    input = input.subspan(part.size());
    append(waiting, part);
    for (std::size_t used = 1;
         used > 0 && !waiting.empty() && !parser.refusal() && !parser.complete();) {
      used = parser.feed(waiting);
      waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(used));
      if (parser.header_complete() && !std::exchange(told, true)) {
        parser.read_body();
        used = 1;
      }
    }
  }
  if (parser.refusal()) return "refused";
  parser.end_of_input();
  if (!parser.header_complete()) return "no header";
  CHECK(parser.body().size() <= http::kMaxResponseBody);
  return std::to_string(parser.status()) + parser.content_type() + parser.body();
}

std::string events(BytesView input, std::size_t piece) {
  http::EventParser parser;
  std::string seen;
  while (!input.empty() && parser.ok()) {
    const BytesView part = input.first(std::min(piece, input.size()));
    input = input.subspan(part.size());
    parser.feed(part, [&seen](const http::Event& event) {
      seen += event.name + "=" + event.data + "\n";
      return true;
    });
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const BytesView input = std::as_bytes(std::span(data + 1, size - 1));
  const std::size_t piece = 1 + data[0] / 2 % 64;
  if (data[0] % 2 == 0) {
    (void)replies(input, piece);
    (void)replies(input, input.size());
  } else {
    CHECK(events(input, piece) == events(input, std::max<std::size_t>(input.size(), 1)));
  }
  return 0;
}

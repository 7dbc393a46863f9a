// Requests as a hostile client of the local API sends them: whole, and cut at every size that the
// first byte asks for, must be understood alike. (A broken header may be refused sooner or later.)
#include <cstdint>
#include <string>
#include <utility>

#include "base/check.hh"
#include "http/codec.hh"

namespace {

using namespace godwit;

// The requests that were understood.
std::string parse(BytesView input, std::size_t piece) {
  http::RequestParser parser;
  Bytes waiting;
  std::string seen;
  while (!input.empty() && !parser.refusal()) {
    const BytesView part = input.first(std::min(piece, input.size()));
    input = input.subspan(part.size());
    append(waiting, part);
    std::size_t used = 0;
    do {
      used = parser.feed(waiting);
      waiting.erase(waiting.begin(), waiting.begin() + static_cast<std::ptrdiff_t>(used));
      if (!parser.complete()) break;
      const http::Request request = parser.take();
      seen += request.method + " " + request.path + " " + request.body + "\n";
      (void)http::percent_decode(request.path);
    } while (used > 0);
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const BytesView input(reinterpret_cast<const std::byte*>(data), size);
  if (input.empty()) return 0;
  const std::size_t piece = 1 + std::to_integer<std::size_t>(input[0]) % 64;
  const std::string whole = parse(input.subspan(1), size);
  const std::string cut = parse(input.subspan(1), piece);
  CHECK(whole == cut, "pieces of {}: {} / {} / {}", piece, whole, cut, as_text(input));
  return 0;
}

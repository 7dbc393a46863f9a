// Any bytes as batches: no crash, bounded output. Any bytes as QEMU's stream: encoded and decoded
// they are the same. The first byte chooses.
#include <algorithm>
#include <cstdlib>

#include "codec/decoder.hh"

namespace {

using namespace godwit;

constexpr codec::Settings kSettings{.cache = 8 * 4096, .level = 1, .window_bits = 17};

Bytes decode(BytesView coded, bool* verified) {
  codec::Decoder decoder(kSettings);
  decoder.push(coded);
  Bytes raw;
  for (Result<bool> more = true; more && *more; more = decoder.step()) {
    if (decoder.waiting() > codec::kMaxRaw) std::abort();
    append(raw, decoder.take());
  }
  *verified = decoder.verified();
  return raw;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const BytesView input = std::as_bytes(std::span(data + 1, size - 1));
  bool verified = false;
  if (data[0] % 2 == 0) {
    decode(input, &verified);
    return 0;
  }
  codec::Encoder encoder(kSettings);
  for (std::size_t at = 0; at < input.size(); at += 5000) {
    encoder.push(input.subspan(at, std::min<std::size_t>(5000, input.size() - at)));
    if (data[0] % 3 == 0) encoder.flush();
  }
  encoder.finish();
  const Bytes raw = decode(encoder.take().bytes, &verified);
  if (!verified || !std::ranges::equal(raw, input)) std::abort();
  return 0;
}

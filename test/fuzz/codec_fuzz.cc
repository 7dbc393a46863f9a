// Any bytes as batches: no crash, bounded output. Any bytes as QEMU's stream: encoded and decoded
// they are the same. The first byte chooses.
#include <algorithm>
#include <cstdlib>

#include "codec/decoder.hh"
#include "codec/encoder.hh"
#include "codec/made_up_group.hh"

namespace {

using namespace godwit;

constexpr std::uint64_t kMostShared = 100;
constexpr codec::Settings kSettings{.cache = 8 * 4096, .level = 1, .window_bits = 17};

codec::Known some_known() {
  const Bytes key(crypto::KeyedHash::kKeySize, std::byte{1});
  auto pages = std::make_shared<codec::KnownPages>(4096, SIZE_MAX, key);
  for (int i = 1; i < 40; ++i) pages->add(Bytes(4096, static_cast<std::byte>(i)));
  pages->seal();
  return {.kept = std::move(pages)};
}
const codec::Known kKnown = some_known();

Bytes decode(BytesView coded, bool* verified) {
  codec::MadeUpPages pages;
  codec::Decoder decoder(kSettings, kKnown,
                         std::make_shared<codec::MadeUpReader>(pages, 0, kMostShared));
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
  codec::Encoder encoder(kSettings, {.index = std::make_shared<codec::MadeUpIndex>(kMostShared)});
  encoder.learn(catalogue_of(kKnown));
  for (std::size_t at = 0; at < input.size(); at += 5000) {
    encoder.push(input.subspan(at, std::min<std::size_t>(5000, input.size() - at)));
    if (data[0] % 3 == 0) encoder.flush();
  }
  encoder.finish();
  const Bytes raw = decode(encoder.take().bytes, &verified);
  if (!verified || !std::ranges::equal(raw, input)) std::abort();
  return 0;
}

// Any bytes as a migration stream: nothing is lost or changed, whatever the chunks.
#include <algorithm>
#include <cstdlib>

#include "stream/qemu_rebuild.hh"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace godwit;
  const BytesView input = std::as_bytes(std::span(data, size));
  const stream::test::Rebuild whole = stream::test::rebuild(input);
  std::mt19937_64 random(size);
  const stream::test::Rebuild chunked = stream::test::rebuild(input, 600, random);
  const bool same = std::ranges::equal(whole.bytes, input) && chunked.bytes == whole.bytes &&
                    chunked.marks == whole.marks && whole.misplaced_marks == 0;
  if (!same) std::abort();
  return 0;
}

// A qcow2 file of anybody's, read for its snapshots; and the header of one, made to be without a
// present.
#include <algorithm>
#include <cstdlib>

#include "qemu/snapshot_map.hh"

using namespace godwit;
using namespace godwit::qemu;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static constexpr int kMostReads = 1000;
  const BytesView file = std::as_bytes(std::span(data, size));
  const auto require_within = [size](FilePart part) {
    if (part.offset >= size || part.length > size - part.offset) std::abort();
  };
  SnapshotMap map({size}, require_within);
  for (int reads = 0; size > 0 && map.wants() && reads < kMostReads; ++reads) {
    require_within(*map.wants());
    if (!map.take(file.subspan(map.wants()->offset, map.wants()->length))) break;
  }
  const auto without = without_present(file.first(std::min(size, kHeaderRead)));
  if (without && without->header.size() != std::min(size, kHeaderRead)) std::abort();
  return 0;
}

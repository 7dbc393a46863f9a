#include "nbd/export.hh"

#include <bit>

#include "base/check.hh"
#include "nbd/protocol.hh"

namespace godwit::nbd {

void check_valid(const Export& disk) {
  const std::uint64_t minimum = disk.minimum_block.bytes, preferred = disk.preferred_block.bytes;
  CHECK(disk.name.size() <= kMaxExportName, "a name of {} bytes", disk.name.size());
  CHECK(std::has_single_bit(minimum) && minimum <= 65'536, "minimum block of {} bytes", minimum);
  CHECK(std::has_single_bit(preferred) && preferred >= 512 && preferred >= minimum &&
            preferred <= kMaxPayload.bytes,
        "preferred block of {} bytes", preferred);
  CHECK(disk.size.bytes % minimum == 0, "{} bytes in blocks of {}", disk.size.bytes, minimum);
}

std::uint16_t transmission_flags(const Export& disk, bool structured_replies) {
  unsigned flags = kHasFlags | kSendFlush | kSendFua;
  if (disk.read_only) flags |= kReadOnly;
  if (!disk.read_only) flags |= kSendTrim | kSendWriteZeroes;
  if (!disk.read_only && disk.fast_zero) flags |= kSendFastZero;
  if (structured_replies) flags |= kSendDf;
  return static_cast<std::uint16_t>(flags);
}

}  // namespace godwit::nbd

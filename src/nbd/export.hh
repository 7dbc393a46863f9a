#pragma once
// A disk as it is offered to the client. A value.
#include <cstdint>
#include <string>

#include "base/units.hh"

namespace godwit::nbd {

inline constexpr std::size_t kMaxExports = 32;      // of one connection: more disks than a vm has
inline constexpr std::size_t kMaxExportName = 256;  // bytes; the protocol's SHOULD for a string
// Payload of one READ or WRITE. blockdev-mirror copies 1 MiB at a time (MAX_IO_BYTES in QEMU's
// block/mirror.c), and QEMU cuts a guest's longer writes to what the server advertises.
inline constexpr ByteCount kMaxPayload{1 << 20};

struct Export {
  std::string name{};
  ByteCount size{};                 // a multiple of the minimum block
  ByteCount minimum_block{1};       // a power of two, at most 64 KiB: offsets and lengths are
                                    // multiples of it
  ByteCount preferred_block{4096};  // a power of two, 512 or more, not below the minimum
  bool read_only = false;
  // WRITE_ZEROES with kFastZero may come. Only where what is behind can tell beforehand that it
  // zeroes faster than it writes: it has to answer kNotSupported at once otherwise. Without it
  // clients send a plain WRITE_ZEROES, which is small on the way to another host in any case.
  bool fast_zero = false;
  bool operator==(const Export&) const = default;
};

// Aborts on what the fields above do not allow: exports are the owner's, not a stranger's.
void check_valid(const Export& disk);
// As the protocol's transmission flags. DF is offered only with structured replies.
std::uint16_t transmission_flags(const Export& disk, bool structured_replies);

}  // namespace godwit::nbd

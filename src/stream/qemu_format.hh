#pragma once
// Constants of QEMU's migration stream, as its own writers have them (migration/savevm.c and
// migration/ram.c of QEMU 7.2; docs/devel/migration). Integers are big-endian.
//
//   header    51 45 56 4d  00 00 00 03
//   config    07 | u32 length | machine name | subsections 05 ...
//   section   01 start, 04 full: | u32 id | u8 length | name | u32 instance | u32 version | data
//             02 part, 03 end:   | u32 id | data
//   footer    7e | u32 id                       after each section
//   command   08 | u16 command | u16 length | data      7 = packaged: u32 size, then so many bytes
//   end       00;  then 06 | u32 length | JSON  describes the devices
//
//   data of section "ram": records u64 (offset | flags), until one with EOS
//     04 MEM_SIZE  offset = bytes in all; then u8 length | name | u64 bytes, until they add up;
//                  for a block in huge pages in post-copy also u64 page size
//     08 PAGE      [u8 length | block name, unless CONTINUE 20] | the page
//     02 ZERO      [likewise] | u8 0
//     10 EOS
#include <cstdint>

namespace godwit::stream::qemu_format {

inline constexpr std::uint32_t kMagic = 0x5145564d;
inline constexpr std::uint32_t kVersion = 3;

enum SectionType : std::uint8_t {
  kEndOfState = 0x00,
  kSectionStart = 0x01,
  kSectionPart = 0x02,
  kSectionEnd = 0x03,
  kSectionFull = 0x04,
  kSubsection = 0x05,
  kConfiguration = 0x07,
  kCommand = 0x08,
  kFooter = 0x7e,
};

inline constexpr std::uint16_t kCommandPackaged = 7;
inline constexpr std::uint32_t kRamVersion = 4;

// Flags in the low bits of a RAM record. Others (XBZRLE 40, compressed 100, multifd 200) belong to
// capabilities that are not used.
inline constexpr std::uint64_t kRamZero = 0x02;
inline constexpr std::uint64_t kRamMemorySize = 0x04;
inline constexpr std::uint64_t kRamPage = 0x08;
inline constexpr std::uint64_t kRamEndOfSection = 0x10;
inline constexpr std::uint64_t kRamContinue = 0x20;

// The target's page: 4 KiB unless a configuration subsection says otherwise (Arm: 4 to 64 KiB).
inline constexpr std::size_t kDefaultPageSize = 4096;
inline constexpr std::uint32_t kMinPageBits = 12;
inline constexpr std::uint32_t kMaxPageBits = 16;

// Bounds of what the parser keeps or waits for; beyond them the stream is opaque.
inline constexpr std::size_t kMaxConfigurationName = 1024;  // bytes; QEMU's machine names have < 64
inline constexpr std::size_t kMaxBlocks = 1024;             // QEMU guests have about 5 to 50

}  // namespace godwit::stream::qemu_format

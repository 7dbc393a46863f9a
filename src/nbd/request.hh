#pragma once
// The header of a request, and whether it may be carried out.
//
//    0        4        6        8                 16                24       28
//    +--------+--------+--------+-----------------+-----------------+--------+
//    | magic  | flags  | command| cookie          | offset          | length | payload of WRITE
//    +--------+--------+--------+-----------------+-----------------+--------+
#include <optional>

#include "base/bytes.hh"
#include "nbd/export.hh"
#include "nbd/protocol.hh"

namespace godwit::nbd {

struct RequestHeader {
  std::uint16_t flags = 0;
  Command command{};  // any number
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool operator==(const RequestHeader&) const = default;
};

// kRequestHeader bytes. nullopt: a wrong magic number.
std::optional<RequestHeader> decode_request(BytesView header);

// kNone, or what a request is refused with: the protocol's section "Error values".
ErrorCode judge(const RequestHeader& request, const Export& disk, bool structured_replies);

}  // namespace godwit::nbd

#pragma once
// Rules that nft(8) has no words for: in an ICMP error the destination of the packet that it
// quotes, or its source, is looked up in a map and replaced, with the checksum that covers it.
//
// Over IPv4 that is the quoted header's own; ICMP's covers both the address and that checksum,
// whose changes cancel out (RFC 1624). Over IPv6 it is ICMPv6's. So the kernel is told another
// place for the checksum than nft would (struct nft_payload, csum_offset); it is linux/netfilter/
// nf_tables.h's NFTA_PAYLOAD_CSUM_OFFSET, and nft lists such a rule like any other.
#include <string>

#include "base/result.hh"

namespace godwit::os {

struct QuotedMaps {
  std::string table{}, chain{};  // of family inet, there already
  std::string map4{}, map6{};    // address to address
  bool of_source = false;        // else the destination's
};
// To the end of the chain, in the calling thread's network namespace.
Result<> add_quoted_rules(const QuotedMaps& maps);

}  // namespace godwit::os

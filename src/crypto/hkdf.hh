#pragma once
// HKDF-Expand with SHA-256 (RFC 5869, 2.3): keys of many purposes from one secret that is already
// uniformly random, such as the output of a TLS exporter.
#include "base/bytes.hh"

namespace godwit::crypto {

// Fills `out` (at most 255 * 32 bytes, CHECKed). `info` names the purpose: different infos give
// independent outputs.
void hkdf_expand(BytesView secret, BytesView info, MutableBytes out);

}  // namespace godwit::crypto

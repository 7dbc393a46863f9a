#pragma once
// What became of a page since it was kept, in words of 8 bytes:
//
//   operations: varint words that are as they were | varint words that changed | ... to the page's
//   end literals:   the changed words, each XORed with what it was
//
// XOR, because what changes is mostly counters and pointers: the upper bytes of the result are
// zero.
#include <cstdint>
#include <optional>

#include "base/bytes.hh"

namespace godwit::codec {

inline constexpr std::size_t kDeltaWord = 8;

// Appends the delta, unless more than `most_words` changed: then false, and nothing is appended.
// Both pages are of one size, a multiple of kDeltaWord.
bool append_delta(BytesView before, BytesView after, std::size_t most_words, Bytes& operations,
                  Bytes& literals);
// False when the operations do not fit the page or the literals.
bool apply_delta(MutableBytes page, Reader& operations, Reader& literals);

}  // namespace godwit::codec

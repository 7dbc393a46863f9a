#include "codec/delta.hh"

#include "codec/batch.hh"

namespace godwit::codec {
namespace {

std::uint64_t word_at(const std::byte* at) {
  std::uint64_t word = 0;
  std::memcpy(&word, at, sizeof word);
  return word;
}

}  // namespace

bool append_delta(BytesView before, BytesView after, std::size_t most_words, Bytes& operations,
                  Bytes& literals) {
  const std::size_t operations_size = operations.size();
  const std::size_t literals_size = literals.size();
  const std::size_t words = after.size() / kDeltaWord;
  const auto changed = [&](std::size_t word) {
    return word_at(before.data() + word * kDeltaWord) ^ word_at(after.data() + word * kDeltaWord);
  };
  std::size_t in_all = 0;
  for (std::size_t at = 0; at < words;) {
    const std::size_t same_from = at;
    while (at < words && changed(at) == 0) ++at;
    const std::size_t changed_from = at;
    while (at < words && changed(at) != 0) ++at;
    in_all += at - changed_from;
    if (in_all > most_words) {
      operations.resize(operations_size);
      literals.resize(literals_size);
      return false;
    }
    append_varint(operations, changed_from - same_from);
    append_varint(operations, at - changed_from);
    for (std::size_t word = changed_from; word < at; ++word) {
      const std::uint64_t bits = changed(word);
      append(literals, BytesView(reinterpret_cast<const std::byte*>(&bits), sizeof bits));
    }
  }
  return true;
}

bool apply_delta(MutableBytes page, Reader& operations, Reader& literals) {
  const std::size_t words = page.size() / kDeltaWord;
  for (std::size_t at = 0; at < words;) {
    const std::uint64_t same = varint(operations);
    const std::uint64_t changed = varint(operations);
    if (!operations.ok() || same + changed == 0 || same > words - at ||
        changed > words - at - same) {
      return false;
    }
    at += same;
    const BytesView bits = literals.bytes(changed * kDeltaWord);
    if (!literals.ok()) return false;
    std::byte* to = page.data() + at * kDeltaWord;
    for (std::size_t i = 0; i < bits.size(); ++i) to[i] ^= bits[i];
    at += changed;
  }
  return true;
}

}  // namespace godwit::codec

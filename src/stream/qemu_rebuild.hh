#pragma once
// Test double: puts a parsed stream together again, so that tests compare it with the original.
#include <random>

#include "stream/qemu_parser.hh"

namespace godwit::stream::test {

class Rebuild final : public QemuSink {
 public:
  void opaque(BytesView piece) override { append(bytes, piece); }
  void page(const PageRecord& record) override {
    page_positions.push_back(bytes.size());
    reproduce(record, bytes);
  }
  void mark(const QemuMark& mark) override {
    if (mark.position != bytes.size()) ++misplaced_marks;
    marks.push_back(mark);
  }

  Bytes bytes;
  std::vector<std::uint64_t> page_positions;
  std::vector<QemuMark> marks;
  int misplaced_marks = 0;
  std::size_t most_held = 0;
  QemuStreamStats stats;
};

// In chunks of 1 to `most` bytes.
inline Rebuild rebuild(BytesView input, std::size_t most, std::mt19937_64& random) {
  Rebuild result;
  QemuParser parser(result);
  while (!input.empty()) {
    const std::size_t count = std::min<std::size_t>(input.size(), 1 + random() % most);
    // A copy of its own, so that a view kept too long is found by the sanitizer.
    const Bytes chunk(input.begin(), input.begin() + static_cast<std::ptrdiff_t>(count));
    parser.push(chunk);
    result.most_held = std::max(result.most_held, parser.held());
    input = input.subspan(count);
  }
  parser.finish();
  result.stats = parser.stats();
  return result;
}

inline Rebuild rebuild(BytesView input) {
  Rebuild result;
  QemuParser parser(result);
  parser.push(input);
  parser.finish();
  result.stats = parser.stats();
  return result;
}

}  // namespace godwit::stream::test

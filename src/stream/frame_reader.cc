#include "stream/frame_reader.hh"

#include <algorithm>

namespace godwit::stream {

FramePart FrameReader::next(BytesView& input) {
  if (!has_header_) {
    if (!fill(input, kFrameHeader)) return {};
    const auto header = decode_header(BytesView(buffer_).first(kFrameHeader));
    if (!header) return {.kind = FramePart::Kind::kBad};
    header_ = *header;
    has_header_ = true;
    payload_done_ = 0;
  }
  if (header_.kind == FrameKind::kData) return data(input);
  if (!fill(input, kFrameHeader + header_.length)) return {};
  return small();
}

bool FrameReader::fill(BytesView& input, std::size_t until) {
  const std::size_t count = std::min(input.size(), until - held_);
  std::copy_n(input.begin(), count, buffer_.begin() + static_cast<std::ptrdiff_t>(held_));
  held_ += count;
  input = input.subspan(count);
  return held_ == until;
}

FramePart FrameReader::data(BytesView& input) {
  const std::size_t count = std::min<std::size_t>(input.size(), header_.length - payload_done_);
  if (count == 0) return {};
  const bool is_whole = count == header_.length;
  FramePart part{.kind = FramePart::Kind::kData,
                 .header = header_,
                 .bytes = input.first(count),
                 .offset = payload_done_};
  if (payload_done_ == 0 && !is_whole) sum_.begin(checksum_seed(header_));
  if (!is_whole) sum_.update(part.bytes);
  payload_done_ += count;
  part.last = payload_done_ == header_.length;
  input = input.subspan(count);
  if (!part.last) return part;
  has_header_ = false;
  held_ = 0;
  part.intact =
      (is_whole ? payload_checksum(header_, part.bytes) : sum_.value()) == header_.checksum;
  return part;
}

FramePart FrameReader::small() {
  const BytesView payload = BytesView(buffer_).subspan(kFrameHeader, header_.length);
  has_header_ = false;
  held_ = 0;
  if (payload_checksum(header_, payload) != header_.checksum) {
    return {.kind = FramePart::Kind::kBad};
  }
  return {.kind = FramePart::Kind::kFrame, .header = header_, .bytes = payload};
}

}  // namespace godwit::stream

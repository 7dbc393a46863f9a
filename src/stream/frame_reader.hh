#pragma once
// Cuts the bytes of a lane, in chunks of any size, into frames. Small frames come whole; the
// payload of DATA comes in parts as it arrives, so that it is copied at most once, to where it
// belongs.
#include <array>

#include "stream/stream_hash.hh"
#include "stream/transfer_frame.hh"

namespace godwit::stream {

struct FramePart {
  enum class Kind {
    kNothing,  // the input is used up
    kFrame,    // a whole frame that is not DATA, its sum verified
    kData,     // a part of a DATA payload
    kBad,      // not a frame, or a wrong sum: the lane is of no more use
  };
  Kind kind = Kind::kNothing;
  FrameHeader header{};
  BytesView bytes{};       // valid until the next call, or as long as the input
  std::size_t offset = 0;  // of `bytes` in the payload of DATA
  bool last = false;       // of its parts
  bool intact = false;     // the payload's sum is right; told with the last
};

class FrameReader final {
 public:
  // Takes the next part off the front of `input`.
  FramePart next(BytesView& input);

 private:
  bool fill(BytesView& input, std::size_t until);
  FramePart data(BytesView& input);
  FramePart small();

  FrameHeader header_{};
  bool has_header_ = false;
  std::size_t held_ = 0;          // bytes in buffer_
  std::size_t payload_done_ = 0;  // of a DATA frame
  Checksum sum_;                  // of these
  std::array<std::byte, kFrameHeader + kMaxSmallPayload> buffer_{};
};

}  // namespace godwit::stream

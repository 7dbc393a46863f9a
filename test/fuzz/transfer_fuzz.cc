// A hostile or broken peer on the lanes of a transfer. The input is a script: raw bytes, and frames
// that are well-formed (with a right checksum, which random bytes never have) but say anything.
#include <cstdlib>
#include <string>

#include "stream/transfer_pair.hh"

namespace {

using namespace godwit;
using namespace godwit::stream;

constexpr std::size_t kWindow = 4096;
const std::vector<StreamSpec> kStreams = {{1, Role::kSource, Priority::kMemory, kWindow, 2048},
                                          {2, Role::kTarget, Priority::kReturnPath, kWindow, 512}};

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size)
      : input_(std::as_bytes(std::span(data, size))),
        transfer_({.id = kId, .role = Role::kTarget, .streams = kStreams}, sink_, now_) {}
  void run() {
    transfer_.lane_up(0, now_);
    while (input_.remaining() > 0) {
      step();
      check();
    }
  }

 private:
  void step() {
    switch (input_.u8() % 12) {
      case 0:
        feed(input_.bytes(std::min<std::size_t>(input_.u8(), input_.remaining())));
        break;
      case 1:
        hello();
        break;
      case 2:
      case 3:
        frame();
        break;
      case 4:
        take();
        break;
      case 5:
        transfer_.offer(2, input_.bytes(std::min<std::size_t>(input_.u8(), input_.remaining())));
        break;
      case 6:
        sink_.appetite = input_.u16();
        transfer_.consumer_ready(1, now_);
        break;
      case 7:
        now_ += milliseconds(input_.u16());
        (void)transfer_.tick(now_);
        break;
      case 8:
        lane_ = input_.u8() % 3;
        if (input_.u8() % 2 == 0) transfer_.lane_down(lane_, now_);
        break;
      case 9:
        transfer_.lane_up(lane_ = input_.u8() % 3, now_);
        break;
      default:
        if (input_.u8() < 16) transfer_.end(2);
    }
  }
  void feed(BytesView bytes) { (void)transfer_.feed(lane_, bytes, now_); }
  void hello() {
    Hello hello{.role = Role::kSource, .transfer = kId};
    hello.incoming.push_back({2, (input_.u8() & 1) != 0, input_.u16()});
    Bytes bytes;
    append_frame(bytes, {.kind = FrameKind::kHello}, encode(hello));
    feed(bytes);
  }
  void frame() {
    FrameHeader header;
    header.kind = FrameKind{static_cast<std::uint8_t>(1 + input_.u8() % 7)};
    header.stream = input_.u8() % 4;
    header.flags = input_.u8() % 2;
    // Near the right place, so that the interesting paths are reached.
    header.sequence = transfer_.stats().in[1].received + input_.u8() % 3 * 100;
    if (header.kind == FrameKind::kAck) header.sequence = input_.u16();
    const BytesView payload =
        input_.bytes(std::min<std::size_t>(input_.u16() % 2000, input_.remaining()));
    header.length = static_cast<std::uint32_t>(payload.size());
    header.checksum = payload_checksum(header, payload);
    Bytes bytes(kFrameHeader);
    encode(header, bytes);
    append(bytes, payload);
    const std::size_t cut = input_.u16() % (bytes.size() + 1);
    feed(BytesView(bytes).first(cut));
    feed(BytesView(bytes).subspan(cut));
  }
  void take() {
    Bytes out(1 + input_.u16());
    if (transfer_.take(lane_, out, now_) > out.size()) std::abort();
  }
  void check() {
    const TransferStats stats = transfer_.stats();
    const InStats in = stats.in.at(1);
    const OutStats out = stats.out.at(2);
    const bool good = in.delivered <= in.received && in.received - in.delivered <= kWindow &&
                      sink_.taken_bytes[1].size() == in.delivered && out.acked <= out.sent &&
                      out.sent <= out.offered && out.backlog() <= kWindow &&
                      sink_.failures.size() <= 1 && sink_.ended.size() <= 1;
    if (!good) std::abort();
  }

  static inline const TransferId kId = TransferId::from(as_bytes("0123456789abcdef"));
  Reader input_;
  Instant now_ = Instant{} + seconds(1000);
  test::RecordingSink sink_;
  LaneNumber lane_ = 0;
  Transfer transfer_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script(data, size).run();
  return 0;
}

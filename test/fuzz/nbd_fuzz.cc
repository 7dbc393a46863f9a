// A hostile NBD client, and an owner that answers in any order. The input is a script: raw bytes,
// options and requests that are well-formed but say anything, replies, and how much the socket
// takes.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "nbd/connection.hh"

namespace {

using namespace godwit;
using namespace godwit::nbd;

// Of a WRITE that is longer, what follows is the rest.
constexpr std::uint32_t kMostPayload = 64 << 10;  // bytes

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size)
      : input_(std::as_bytes(std::span(data, size))) {}
  void run() {
    while (input_.remaining() > 0 && !connection_.failed() && !connection_.finished()) {
      step();
      check();
    }
    while (!waiting_.empty()) answer();
  }

 private:
  void step() {
    switch (input_.u8() % 8) {
      case 0:
        return send(some_bytes());
      case 1:
        return greet();
      case 2:
        return option();
      case 3:
      case 4:
        return request();
      case 5:
      case 6:
        return answer();
      default:
        return connection_.advance(std::min<std::size_t>(connection_.peek().size(), input_.u16()));
    }
  }
  BytesView some_bytes() {
    return input_.bytes(std::min<std::size_t>(input_.u8(), input_.remaining()));
  }
  void send(BytesView bytes) {
    while (!bytes.empty()) {
      const MutableBytes room = connection_.room();
      if (room.empty()) break;
      const BytesView part = bytes.first(std::min(room.size(), bytes.size()));
      std::ranges::copy(part, room.begin());
      connection_.commit(part.size());
      bytes = bytes.subspan(part.size());
      take();
    }
    take();
  }
  void take() {
    while (const auto request = connection_.next()) {
      const std::uint64_t size = connection_.chosen()->size.bytes;
      const std::size_t payload = request->command == Command::kWrite ? request->length : 0;
      if (request->payload.size() != payload || request->offset > size ||
          request->length > size - request->offset) {
        std::abort();
      }
      for (const std::byte each : request->payload) seen_ ^= each;  // all of them can be read
      waiting_.push_back(*request);
    }
  }
  void greet() {
    Bytes bytes;
    Writer(bytes).u32(input_.u8() % 4);
    send(bytes);
  }
  void option() {
    Bytes bytes, data;
    const std::uint32_t number = input_.u8() % 13;
    if (number == 6 || number == 7) {
      Writer(data).u32(1).u8('a' + input_.u8() % 3).u16(1).u16(input_.u8() % 5);
    }
    append(data, some_bytes());
    Writer(bytes).u64(kOptionMagic).u32(number).u32(static_cast<std::uint32_t>(data.size()));
    append(bytes, data);
    send(bytes);
  }
  void request() {
    Bytes bytes;
    const std::uint16_t flags = input_.u8() % 32, command = input_.u8() % 8;
    Writer(bytes).u32(kRequestMagic).u16(flags).u16(command).u64(input_.u8());
    Writer(bytes).u64(input_.u16() * 512u);
    const std::uint32_t units = input_.u16(), length = units * (input_.u8() % 4 == 0 ? 512u : 1u);
    Writer(bytes).u32(length);
    if (command == 1) bytes.resize(bytes.size() + std::min(length, kMostPayload));
    send(bytes);
  }
  void answer() {
    if (waiting_.empty()) return;
    const std::size_t which = input_.u8() % waiting_.size();
    const Request request = waiting_[which];
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(which));
    const bool fails = input_.u8() % 4 == 0;
    if (request.command == Command::kRead && !fails) {
      connection_.reply_read(request.id, BytesView(kZeroes).first(request.length));
    } else {
      connection_.reply(request.id, fails ? ErrorCode::kIo : ErrorCode::kNone);
    }
    take();
  }
  void check() {
    if (connection_.outstanding() != waiting_.size() || waiting_.size() > kMaxOutstanding) {
      std::abort();
    }
  }

  static inline const Bytes kZeroes = Bytes(kMaxPayload.bytes);
  Reader input_;
  Connection connection_{
      {{.name = "a", .size = {16 << 20}},
       {.name = "b", .size = {1 << 20}, .minimum_block = {512}, .fast_zero = true},
       {.name = "", .size = {4096}, .read_only = true}}};
  std::vector<Request> waiting_;
  std::byte seen_{};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script(data, size).run();
  return 0;
}

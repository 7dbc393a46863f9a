// What QEMU, or a guest that broke into it, can say over QMP; and what a guest can say as its
// qemu-guest-agent. The first byte chooses who speaks and in which pieces. Nothing may throw, and
// what is kept is bounded.
#include <algorithm>

#include "os/memory_stream.hh"
#include "qemu/commands.hh"
#include "qemu/guest_clock.hh"

namespace {

using namespace godwit;

void speak(os::MemoryLink& link, os::ByteStream& stream, BytesView input, std::size_t piece) {
  while (!input.empty()) {
    const std::size_t taken = stream.write(input.first(std::min(piece, input.size())));
    if (taken == 0) return;
    input = input.subspan(taken);
    link.settle();
  }
}

void as_qemu(os::Loop& loop, BytesView input, std::size_t piece) {
  os::MemoryLink link;
  const auto qemu = link.take_b();
  qemu->start({});
  qemu::Qmp qmp(loop, link.take_a(), "web",
                {.ready = {},
                 .event = [](const qemu::QmpEvent& event) { (void)event.name.size(); },
                 .closed = {}});
  qemu::query_status(qmp, [](const auto&) {});
  qemu::query_migrate(qmp, [](const auto&) {});
  speak(link, *qemu, as_bytes("{\"QMP\": {}}\n{\"return\": {}, \"id\": 3}\n"), 4096);
  speak(link, *qemu, input, piece);
}

void as_guest(os::Loop& loop, BytesView input, std::size_t piece) {
  os::MemoryLink link;
  const auto guest = link.take_b();
  guest->start({});
  qemu::GuestClock clock(loop, link.take_a(), milliseconds(100), [](const auto&) {});
  speak(link, *guest, as_bytes("\xff{\"return\": 4747}\n"), 4096);
  speak(link, *guest, input, piece);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  static os::Loop loop;
  const BytesView input = std::as_bytes(std::span(data + 1, size - 1));
  const std::size_t piece = 1 + data[0] / 2 * 8;
  data[0] % 2 == 0 ? as_qemu(loop, input, piece) : as_guest(loop, input, piece);
  return 0;
}

// The relay's own cost on one core, without kernel and TLS: parse QEMU's stream, cut it into
// frames, take the frames apart at the other end, both sums on both sides. Bytes are those of the
// guest.
#include <benchmark/benchmark.h>

#include <random>

#include "stream/qemu_parser.hh"
#include "stream/transfer.hh"

namespace godwit::stream {
namespace {

constexpr std::size_t kChunk = 256 << 10;  // of one read from QEMU's socket

// 64 MiB of RAM sections with every fourth page zero.
Bytes qemu_stream() {
  constexpr std::uint64_t kRam = 64 << 20;
  std::mt19937_64 random(1);
  Bytes stream;
  Writer out(stream);
  out.u32(qemu_format::kMagic).u32(qemu_format::kVersion);
  out.u8(1).u32(2).text8("ram").u32(0).u32(4).u64(kRam | 4).text8("pc.ram").u64(kRam);
  for (std::uint64_t offset = 0; offset < kRam; offset += 4096) {
    if (offset % 16384 == 0) {
      out.u64(offset | 0x02 | (offset > 0 ? 0x20 : 0));
      if (offset == 0) out.text8("pc.ram");
      out.u8(0);
      continue;
    }
    out.u64(offset | 0x28);
    for (int i = 0; i < 512; ++i) out.u64(random());
  }
  return stream;
}

const Bytes& sample() {
  static const Bytes stream = qemu_stream();
  return stream;
}

class PageCounter final : public QemuSink {
 public:
  void opaque(BytesView bytes) override { opaque_bytes += bytes.size(); }
  void page(const PageRecord& record) override { page_bytes += record.contents.size(); }
  void mark(const QemuMark&) override {}
  std::uint64_t opaque_bytes = 0, page_bytes = 0;
};

class Discard final : public TransferSink {
 public:
  std::size_t deliver(StreamId, BytesView bytes) override {
    delivered += bytes.size();
    return bytes.size();
  }
  void stream_ended(StreamId) override {}
  void end_acknowledged(StreamId) override {}
  void transfer_failed(const Error&) override {}
  std::uint64_t delivered = 0;
};

void count_bytes(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(sample().size()));
}

void parse(benchmark::State& state) {
  for (auto _ : state) {
    PageCounter sink;
    QemuParser parser(sink);
    for (BytesView rest = sample(); !rest.empty();) {
      const BytesView chunk = rest.first(std::min(rest.size(), kChunk));
      parser.push(chunk);
      rest = rest.subspan(chunk.size());
    }
    benchmark::DoNotOptimize(sink.page_bytes);
  }
  count_bytes(state);
}
BENCHMARK(parse)->Unit(benchmark::kMillisecond);

// Hands what `from` has to `to`, in pieces of TLS record size as a lane would.
void shuttle(Transfer& from, Transfer& to, Instant now) {
  for (;;) {
    const BytesView bytes = from.peek(0, now);
    if (bytes.empty()) return;
    const BytesView record = bytes.first(std::min<std::size_t>(bytes.size(), 16 << 10));
    if (to.feed(0, record, now)) std::abort();
    from.advance(0, record.size());
  }
}

void relay(benchmark::State& state) {
  const bool with_parser = state.range(0) != 0;
  Instant now{};
  for (auto _ : state) {
    Discard source_sink, target_sink;
    PageCounter pages;
    QemuParser parser(pages);
    const TransferId id = TransferId::from(as_bytes("0123456789abcdef"));
    Transfer source({.id = id, .role = Role::kSource}, source_sink, now);
    Transfer target({.id = id, .role = Role::kTarget}, target_sink, now);
    source.lane_up(0, now);
    target.lane_up(0, now);
    for (BytesView rest = sample(); !rest.empty();) {
      const MutableBytes room = source.space(kMemoryStream);
      const std::size_t count = std::min({rest.size(), room.size(), kChunk});
      std::memcpy(room.data(), rest.data(), count);  // stands for read(2)
      if (with_parser) parser.push(room.first(count));
      source.commit(kMemoryStream, count);
      rest = rest.subspan(count);
      now += std::chrono::microseconds(100);
      shuttle(source, target, now);
      shuttle(target, source, now);
    }
    source.end(kMemoryStream);
    shuttle(source, target, now);
    if (target_sink.delivered != sample().size()) std::abort();
  }
  count_bytes(state);
}
BENCHMARK(relay)->ArgName("parser")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace godwit::stream

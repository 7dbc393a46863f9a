// ns per datagram sealed and opened, for each AEAD back-end: the raw cipher at the sizes of the
// prototype's table, and the whole codec (64 KiB super-frames, MTU-sized frames, bundles of 64 B).
#include <benchmark/benchmark.h>

#include <optional>

#include "wire/wire_testing.hh"

namespace godwit::wire {
namespace {

using crypto::AeadAlgorithm;
using crypto::AeadBackend;

struct Cipher {
  const char* name;
  AeadAlgorithm algorithm;
  AeadBackend backend;
};
constexpr Cipher kCiphers[] = {
    {"aes_256_gcm/ipsec_mb", AeadAlgorithm::aes_256_gcm, AeadBackend::ipsec_mb},
    {"aes_256_gcm/openssl", AeadAlgorithm::aes_256_gcm, AeadBackend::openssl},
    {"chacha20_poly1305/openssl", AeadAlgorithm::chacha20_poly1305, AeadBackend::openssl},
};

struct NullSink final : OpenerSink {
  void frame(BytesView bytes) override { benchmark::DoNotOptimize(bytes.data()); }
  void message(std::uint8_t, BytesView, std::uint64_t) override {}
};

void seal(benchmark::State& state, const Cipher& cipher) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto aead = crypto::make_aead(cipher.algorithm, testing::test_key().key, cipher.backend);
  const Bytes plain(size);
  Bytes sealed(size + kTagBytes);
  std::array<std::byte, crypto::kAeadNonceBytes> nonce{};
  const DatagramAad aad{};
  std::uint64_t counter = 0;
  for (auto _ : state) {
    to_big_endian(counter++, &nonce[4]);
    aead->seal(nonce, aad, plain, sealed);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void open(benchmark::State& state, const Cipher& cipher) {
  const auto size = static_cast<std::size_t>(state.range(0));
  const auto aead = crypto::make_aead(cipher.algorithm, testing::test_key().key, cipher.backend);
  const std::array<std::byte, crypto::kAeadNonceBytes> nonce{};
  const DatagramAad aad{};
  Bytes sealed(size + kTagBytes);
  aead->seal(nonce, aad, Bytes(size), sealed);
  Bytes plain(size);
  for (auto _ : state) {
    if (!aead->open(nonce, aad, sealed, plain)) state.SkipWithError("bad tag");
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

LaneKey codec_key(const Cipher& cipher) {
  LaneKey key = testing::test_key();
  key.algorithm = cipher.algorithm;
  key.backend = cipher.backend;
  return key;
}

std::vector<Bytes> batch_of_frames(std::size_t size) {
  testing::Random random(1);
  const std::size_t count = size > 10'000 ? 8 : 64;
  if (size < 10'000) return std::vector<Bytes>(count, testing::plain_frame(size, random));
  return std::vector<Bytes>(count, testing::super_frame({.payload = size}, random));
}

// One iteration is one batch; the counter says ns per datagram.
void seal_frames(benchmark::State& state, const Cipher& cipher) {
  const auto frames = batch_of_frames(static_cast<std::size_t>(state.range(0)));
  DatagramBatch batch;
  std::optional<Sealer> sealer(std::in_place, codec_key(cipher), 1500);
  std::uint64_t datagrams = 0;
  for (auto _ : state) {
    if (sealer->wants_rekey()) sealer.emplace(codec_key(cipher), 1500);
    batch.clear();
    for (const Bytes& frame : frames) sealer->frame(frame, batch);
    sealer->flush(batch);
    datagrams += batch.datagrams();
  }
  state.counters["per_datagram"] = benchmark::Counter(
      double(datagrams), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(frames.size()));
}

void open_frames(benchmark::State& state, const Cipher& cipher) {
  const auto frames = batch_of_frames(static_cast<std::size_t>(state.range(0)));
  DatagramBatch batch;
  FramePool pool;
  NullSink sink;
  Sealer sealer(codec_key(cipher), 1500);
  Opener opener(codec_key(cipher), pool);
  std::uint64_t datagrams = 0;
  const Instant now{seconds(1)};
  for (auto _ : state) {
    state.PauseTiming();
    batch.clear();
    for (const Bytes& frame : frames) sealer.frame(frame, batch);
    sealer.flush(batch);
    state.ResumeTiming();
    for (const DatagramRun& run : batch.runs()) {
      for (std::size_t at = 0; at < run.bytes.size(); at += run.segment_size) {
        const std::size_t size = std::min<std::size_t>(run.segment_size, run.bytes.size() - at);
        if (!opener.open(run.bytes.subspan(at, size), now, sink)) state.SkipWithError("refused");
      }
    }
    datagrams += batch.datagrams();
  }
  state.counters["per_datagram"] = benchmark::Counter(
      double(datagrams), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(frames.size()));
}

void register_all() {
  for (const Cipher& cipher : kCiphers) {
    if (!crypto::has_backend(cipher.backend)) continue;
    const std::string name = cipher.name;
    for (const auto& [what, function] : {std::pair{"seal/", &seal}, std::pair{"open/", &open}}) {
      auto* bench = benchmark::RegisterBenchmark((what + name).c_str(), function, cipher);
      for (const int size : {64, 1420, 9000, 63'000}) bench->Arg(size);
    }
    for (const auto& [what, function] :
         {std::pair{"seal_frames/", &seal_frames}, std::pair{"open_frames/", &open_frames}}) {
      auto* bench = benchmark::RegisterBenchmark((what + name).c_str(), function, cipher);
      for (const int size : {74, 1524, 63'000}) bench->Arg(size);
    }
  }
}

}  // namespace
}  // namespace godwit::wire

int main(int argc, char** argv) {
  godwit::wire::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

// A vm's memory through the encoder's threads, with a lane that takes all at once: what QEMU's
// stream may come to at most. The memory is this machine's programs and libraries, which is what
// much of a guest's page cache is. By the number of windows: as many threads compress.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "agent/encode_stage.hh"
#include "stream/qemu_format.hh"

namespace godwit::agent {
namespace {

constexpr std::size_t kMemory = 192 << 20;

Bytes programs() {
  std::vector<std::filesystem::path> files;
  for (const char* directory : {"/usr/bin", "/usr/lib/x86_64-linux-gnu"}) {
    for (const auto& each : std::filesystem::directory_iterator(directory)) {
      if (each.is_regular_file()) files.push_back(each.path());
    }
  }
  std::ranges::sort(files);
  Bytes bytes(kMemory);
  std::size_t at = 0;
  for (const auto& file : files) {
    std::ifstream in(file, std::ios::binary);
    in.read(reinterpret_cast<char*>(bytes.data() + at), static_cast<std::streamsize>(kMemory - at));
    at += static_cast<std::size_t>(in.gcount());
  }
  bytes.resize(at / 4096 * 4096);
  return bytes;
}

const Bytes& sample() {
  static const Bytes stream = [] {
    namespace format = stream::qemu_format;
    const Bytes memory = programs();
    Bytes out;
    Writer writer(out);
    writer.u32(format::kMagic).u32(format::kVersion);
    writer.u8(format::kSectionStart).u32(2).text8("ram").u32(0).u32(format::kRamVersion);
    writer.u64(memory.size() | format::kRamMemorySize).text8("pc.ram").u64(memory.size());
    for (std::size_t at = 0; at < memory.size(); at += format::kDefaultPageSize) {
      writer.u64(at | format::kRamPage | (at > 0 ? format::kRamContinue : 0));
      if (at == 0) writer.text8("pc.ram");
      writer.bytes(BytesView(memory).subspan(at, format::kDefaultPageSize));
    }
    return out;
  }();
  return stream;
}

void encode(benchmark::State& state) {
  std::size_t coded = 0;
  for (auto _ : state) {
    os::Loop loop;
    EncodeStage stage(
        loop,
        {.level = static_cast<int>(state.range(0)), .windows = static_cast<int>(state.range(1))},
        {}, {.changed = [] {}, .mark = [](const stream::QemuMark&) {}});
    coded = 0;
    for (BytesView rest = sample(); !stage.ended();) {
      for (MutableBytes room = stage.room(); !rest.empty() && !room.empty(); room = stage.room()) {
        const std::size_t count = std::min(room.size(), rest.size());
        std::ranges::copy(rest.first(count), room.begin());
        stage.commit(count);
        rest = rest.subspan(count);
      }
      if (rest.empty()) stage.finish();
      for (; !stage.coded().empty(); stage.took(stage.coded().size()))
        coded += stage.coded().size();
      if (!stage.ended()) loop.run_once(milliseconds(100));
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(sample().size()));
  state.counters["ratio"] = static_cast<double>(sample().size()) / static_cast<double>(coded);
}
BENCHMARK(encode)
    ->ArgNames({"level", "windows"})
    ->ArgsProduct({{1, 2, 3}, {1, 2, 4}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace godwit::agent

#pragma once
// Test double: the migration stream of a guest that was never there, with pages that stay, change a
// little, are copied, are zero or are noise, in several rounds.
#include <algorithm>
#include <random>

#include "stream/qemu_format.hh"
#include "stream/qemu_parser.hh"

namespace godwit::codec {

// The beginning of a stream: the first round of a guest of whose memory all pages are zero.
inline Bytes stream_of_zero_pages(std::uint64_t pages) {
  namespace format = stream::qemu_format;
  constexpr std::uint64_t kPage = format::kDefaultPageSize;
  Bytes out;
  Writer writer(out);
  writer.u32(format::kMagic).u32(format::kVersion);
  writer.u8(format::kSectionStart).u32(2).text8("ram").u32(0).u32(format::kRamVersion);
  writer.u64(pages * kPage | format::kRamMemorySize).text8("a").u64(pages * kPage);
  for (std::uint64_t i = 0; i < pages; ++i) {
    writer.u64(i * kPage | format::kRamZero | (i > 0 ? format::kRamContinue : 0));
    if (i == 0) writer.text8("a");
    writer.u8(0);
  }
  return out;
}

class MadeUpGuest final {
 public:
  static constexpr std::size_t kPage = stream::qemu_format::kDefaultPageSize;

  MadeUpGuest(std::uint64_t seed, std::size_t pages) : random_(seed), memory_(pages) {
    for (Bytes& page : memory_) fill(page);
  }

  // With `package`: it comes to post-copy before the last round.
  Bytes stream(int rounds, std::string_view package = {}) {
    namespace format = stream::qemu_format;
    Bytes out;
    Writer writer(out);
    writer.u32(format::kMagic).u32(format::kVersion);
    writer.u8(format::kSectionStart).u32(2).text8("ram").u32(0).u32(format::kRamVersion);
    writer.u64(memory_.size() * kPage | format::kRamMemorySize);
    writer.text8("pc.ram").u64(memory_.size() * kPage);
    end_section(writer);
    for (int round = 0; round < rounds; ++round) {
      const bool last = round + 1 == rounds;
      if (last && !package.empty()) {
        writer.u8(format::kCommand).u16(format::kCommandPackaged).u16(sizeof(std::uint32_t));
        writer.u32(static_cast<std::uint32_t>(package.size())).bytes(as_bytes(package));
      }
      writer.u8(last ? format::kSectionEnd : format::kSectionPart).u32(2);
      bool named = false;
      for (std::size_t i = 0; i < memory_.size(); ++i) {
        if (round > 0 && !dirty(memory_[i])) continue;
        const bool zero = std::ranges::all_of(memory_[i], [](auto b) { return b == std::byte{0}; });
        const stream::PageRecord record{
            .kind = zero ? stream::PageRecord::Kind::kZero : stream::PageRecord::Kind::kPage,
            .continues = named,
            .block = 0,
            .name = "pc.ram",
            .offset = i * kPage,
            .contents = zero ? BytesView(memory_[i]).first(1) : BytesView(memory_[i])};
        reproduce(record, out);
        named = true;
      }
      end_section(writer);
    }
    writer.u8(format::kSectionFull).u32(7).text8("cpu").u32(0).u32(1).bytes(as_bytes("state"));
    writer.u8(format::kEndOfState);
    return out;
  }

  const std::vector<Bytes>& memory() const { return memory_; }

 private:
  static void end_section(Writer& writer) {
    namespace format = stream::qemu_format;
    writer.u64(format::kRamEndOfSection).u8(format::kFooter).u32(2);
  }
  void fill(Bytes& page) {
    page.assign(kPage, std::byte{0});
    switch (random_() % 4) {
      case 0:
        return;
      case 1:
        page = memory_[random_() % memory_.size()];
        page.resize(kPage);
        return;
      case 2:
        for (auto& byte : page) byte = static_cast<std::byte>(random_());
        return;
      default:
        for (auto& byte : page) byte = static_cast<std::byte>('a' + random_() % 4);
    }
  }
  // False: it was not written to. A page that is written with what it held is sent, too.
  bool dirty(Bytes& page) {
    switch (random_() % 6) {
      case 0:
        return true;
      case 1:
        fill(page);
        return true;
      case 2:
        for (int i = 0; i < 5; ++i) page[random_() % kPage] = static_cast<std::byte>(random_());
        return true;
      default:
        return false;
    }
  }

  std::mt19937_64 random_;
  std::vector<Bytes> memory_;
};

}  // namespace godwit::codec

#include "agent/page_index.hh"

#include <algorithm>

#include "qemu/vm_spec.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;
using qemu::kPageBytes;

constexpr std::size_t kEntry = sizeof(std::uint32_t) + crypto::KeyedHash::kSize;
constexpr std::size_t kTrailer = sizeof(std::uint64_t);

void put(std::ofstream& file, BytesView bytes) {
  file.write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
}

Bytes part_of(std::ifstream& file, std::uint64_t at, std::size_t count) {
  Bytes bytes(count);
  file.seekg(static_cast<std::streamoff>(at));
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

}  // namespace

PageIndex::PageIndex(const fs::path& file, BytesView stamp, BytesView key)
    : path_(file), file_(file, std::ios::binary | std::ios::trunc), hash_(key) {
  put(file_, stamp);
}

void PageIndex::add(std::uint64_t offset, BytesView bytes) {
  Bytes entry;
  for (std::size_t at = 0; at + kPageBytes <= bytes.size(); at += kPageBytes) {
    const std::uint64_t place = (offset + at) / kPageBytes;
    if (names_.size() == kMostPages || place > UINT32_MAX) return;
    const BytesView page = bytes.subspan(at, kPageBytes);
    if (is_all_zeros(page)) continue;
    const codec::PageName name = hash_(page);
    if (!names_.insert(name).second) continue;
    entry.clear();
    Writer(entry).u32(static_cast<std::uint32_t>(place));
    append(entry, name);
    put(file_, entry);
  }
}

Result<> PageIndex::end() {
  Bytes count;
  Writer(count).u64(names_.size());
  put(file_, count);
  if (!file_.flush()) return fail("{} cannot be written", path_.string());
  return {};
}

bool is_page_index(const fs::path& path, BytesView stamp) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  if (error || size < stamp.size() + kTrailer) return false;
  std::ifstream file(path, std::ios::binary);
  const Bytes count = part_of(file, size - kTrailer, kTrailer);
  return std::ranges::equal(part_of(file, 0, stamp.size()), stamp) && count.size() == kTrailer &&
         Reader(count).u64() == (size - stamp.size() - kTrailer) / kEntry &&
         (size - stamp.size() - kTrailer) % kEntry == 0;
}

Result<std::vector<NamedPage>> read_page_index(const fs::path& path, BytesView stamp) {
  if (!is_page_index(path, stamp)) return fail("{} is no index of pages", path.string());
  std::ifstream file(path, std::ios::binary);
  const std::size_t size =
      std::min(fs::file_size(path) - stamp.size() - kTrailer, kMostPages * kEntry);
  const Bytes entries = part_of(file, stamp.size(), size);
  std::vector<NamedPage> pages(entries.size() / kEntry);
  Reader reader(entries);
  for (NamedPage& page : pages) {
    page.place = reader.u32();
    std::ranges::copy(reader.bytes(crypto::KeyedHash::kSize), page.name.begin());
  }
  return pages;
}

}  // namespace godwit::agent

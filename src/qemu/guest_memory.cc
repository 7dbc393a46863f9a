#include "qemu/guest_memory.hh"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cinttypes>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "os/fd.hh"
#include "qemu/vm_spec.hh"

namespace godwit::qemu {
namespace {

constexpr std::size_t kPagesAtOnce = 512;  // 2 MiB
// Of a word of pagemap (Documentation/admin-guide/mm/pagemap.rst): in memory, or swapped out.
constexpr std::uint64_t kThere = std::uint64_t{3} << 62;

// The only mapping of that size which is private, anonymous, and data. QEMU makes one for the
// backend of the vm's memory; its flags keep the kernel from joining it with a neighbour.
Result<std::uint64_t> find_mapping(pid_t pid, ByteCount memory) {
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  std::optional<std::uint64_t> found;
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0, end = 0, inode = 0;
    std::array<char, 5> flags{};
    const int fields = std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %4s %*x %*s %" SCNu64,
                                   &begin, &end, flags.data(), &inode);
    if (fields != 4 || inode != 0 || std::string_view(flags.data()) != "rw-p") continue;
    if (end - begin != memory.bytes) continue;
    if (found) return fail("QEMU {} has several mappings of {}", pid, to_text(memory));
    found = begin;
  }
  if (!found) return fail("QEMU {} has no mapping of {}", pid, to_text(memory));
  return *found;
}

Result<os::Fd> open_file(pid_t pid, const char* name) {
  const std::string path = fmt::format("/proc/{}/{}", pid, name);
  os::Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail("{}", errno_text("open " + path));
  return fd;
}

Result<> read_exactly(const os::Fd& fd, void* into, std::size_t size, std::uint64_t at) {
  const ssize_t got = ::pread(fd.number(), into, size, static_cast<off_t>(at));
  if (got == static_cast<ssize_t>(size)) return {};
  return fail("the memory of a QEMU cannot be read: {}",
              got < 0 ? errno_text("pread") : std::string("it has ended"));
}

// Of one process and one mapping.
class Mapping final {
 public:
  Mapping(os::Fd mem, os::Fd pagemap, std::uint64_t begin)
      : mem_(std::move(mem)), pagemap_(std::move(pagemap)), begin_(begin) {}

  // Reads at most kPagesAtOnce pages from the `first` one on; of those that were ever written
  // `each` is told. False: it has had enough.
  Result<bool> read(std::uint64_t first, std::size_t count,
                    const std::function<bool(BytesView)>& each) {
    const std::uint64_t at = begin_ + first * kPageBytes;
    const auto known = read_exactly(pagemap_, words_.data(), count * sizeof words_[0],
                                    at / kPageBytes * sizeof words_[0]);
    if (!known) return std::unexpected(known.error());
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t end = i;
      while (end < count && (words_[end] & kThere) != 0) ++end;
      if (end == i) continue;
      const MutableBytes run = MutableBytes(pages_).first((end - i) * kPageBytes);
      const auto done = read_exactly(mem_, run.data(), run.size(), at + i * kPageBytes);
      if (!done) return std::unexpected(done.error());
      for (std::size_t page = 0; page < run.size(); page += kPageBytes) {
        if (!each(run.subspan(page, kPageBytes))) return false;
      }
      i = end;
    }
    return true;
  }

 private:
  os::Fd mem_, pagemap_;
  std::uint64_t begin_;
  std::vector<std::uint64_t> words_ = std::vector<std::uint64_t>(kPagesAtOnce);
  Bytes pages_ = Bytes(kPagesAtOnce * kPageBytes);
};

}  // namespace

Result<> read_guest_memory(const os::ProcessIdentity& process, ByteCount memory,
                           const std::function<bool(BytesView page)>& each) {
  const auto begin = find_mapping(process.pid, memory);
  if (!begin) return std::unexpected(begin.error());
  auto mem = open_file(process.pid, "mem");
  if (!mem) return std::unexpected(mem.error());
  auto pagemap = open_file(process.pid, "pagemap");
  if (!pagemap) return std::unexpected(pagemap.error());
  // The descriptors are of one process: of the one that has the number now.
  if (os::identify(process.pid) != process) return fail("QEMU {} has ended", process.pid);
  Mapping mapping(*std::move(mem), *std::move(pagemap), *begin);
  const std::uint64_t count = memory.bytes / kPageBytes;
  for (std::uint64_t first = 0; first < count; first += kPagesAtOnce) {
    const auto more =
        mapping.read(first, std::min<std::uint64_t>(kPagesAtOnce, count - first), each);
    if (!more) return std::unexpected(more.error());
    if (!*more) break;
  }
  return {};
}

}  // namespace godwit::qemu

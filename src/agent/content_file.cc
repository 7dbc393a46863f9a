#include "agent/content_file.hh"

#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "agent/disk_digests.hh"
#include "agent/page_index.hh"
#include "os/loop.hh"
#include "qemu/launch.hh"
#include "qemu/storage_daemon.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic{"godwit index 1\0\0", 16};
constexpr std::size_t kHeader = 64;
constexpr std::int64_t kNanoseconds = 1'000'000'000;

Bytes read_up_to(std::ifstream& file, std::size_t count) {
  Bytes bytes(count);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<std::size_t>(file.gcount()));
  return bytes;
}

void write(std::ofstream& file, BytesView bytes) {
  file.write(as_text(bytes).data(), static_cast<std::streamsize>(bytes.size()));
}

// One reading of a disk, from its first block to its last, in a loop of its own.
class Indexing final {
 public:
  Indexing(const Content& content, BytesView key, std::ofstream& file, DiskDigests::Seen seen,
           const std::atomic<bool>& cancelled)
      : content_(content),
        digest_(key),
        file_(file),
        seen_(std::move(seen)),
        cancelled_(cancelled) {}

  Result<> run(const fs::path& directory) {
    const auto socket = qemu::place_for_socket(directory);
    if (!socket) return std::unexpected(socket.error());
    try {
      const qemu::StorageDaemon daemon(
          loop_, {content_.disk}, {content_.paths}, *socket,
          [this](const std::string& why) { end(fail("{}", why)); }, qemu::DiskAccess::look);
      client_ = std::make_unique<qemu::BlockClient>(
          loop_, socket->string(), qemu::disk_node(0),
          [this](const Result<>& ready) { ready ? begin() : end(ready); });
      loop_.run();
      client_.reset();
    } catch (const SetupError& error) {
      return fail("{}", error.what());
    }
    return result_;
  }

 private:
  void begin() {
    if (client_->size() != content_.disk.size) {
      return end(
          fail("it has {} instead of {} bytes", client_->size().bytes, content_.disk.size.bytes));
    }
    digests_.emplace(*client_, content_.disk, std::uint8_t{0}, digest_, seen_);
    next();
  }
  void next() {
    digests_->next([this](const Result<disk::SeedPart>& part) {
      if (!part) return end(std::unexpected(part.error()));
      if (cancelled_) return end(fail("it was given up"));
      Bytes bytes;
      append(*part, bytes);
      write(file_, bytes);
      part->digests.empty() ? end({}) : next();
    });
  }
  void end(Result<> result) {
    result_ = std::move(result);
    loop_.stop();
  }

  const Content& content_;
  crypto::KeyedHash digest_;
  std::ofstream& file_;
  DiskDigests::Seen seen_;
  const std::atomic<bool>& cancelled_;
  os::Loop loop_;
  Result<> result_;
  std::optional<DiskDigests> digests_;
  std::unique_ptr<qemu::BlockClient> client_;  // the last: it reads into digests_
};

}  // namespace

Bytes stamp_of(const Content& content, BytesView key) {
  struct stat about{};
  if (::stat(content.paths.file.c_str(), &about) != 0) return {};
  Bytes facts;
  Writer(facts)
      .u64(static_cast<std::uint64_t>(about.st_size))
      .u64(static_cast<std::uint64_t>(about.st_mtim.tv_sec * kNanoseconds + about.st_mtim.tv_nsec))
      .u64(about.st_ino)
      .u64(content.disk.size.bytes);
  Bytes header = to_bytes(as_bytes(kMagic));
  append(header, crypto::KeyedHash(key)(facts));
  append(header, facts);
  return header;
}

bool is_indexed(const Content& content, BytesView key, const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  const Bytes header = stamp_of(content, key);
  if (header.empty() || !file || read_up_to(file, kHeader) != header) return false;
  Bytes end;
  append(disk::SeedPart{.offset = content.disk.size.bytes}, end);
  file.seekg(-static_cast<std::streamoff>(end.size()), std::ios::end);
  return read_up_to(file, end.size()) == end &&
         (!content.is_image || is_page_index(pages_of(path), header));
}

fs::path pages_of(const fs::path& index) { return fs::path(index).replace_extension(".pages"); }

Result<std::vector<IndexedBlock>> read_index(const Content& content, BytesView key,
                                             const fs::path& path) {
  if (!is_indexed(content, key, path)) return fail("{} has no index", content.name);
  std::ifstream file(path, std::ios::binary);
  file.seekg(kHeader);
  std::vector<IndexedBlock> blocks;
  disk::SeedReader reader({content.disk.size});
  constexpr std::size_t kPiece = 1 << 20;
  while (true) {
    const Bytes piece = read_up_to(file, kPiece);
    if (piece.empty()) return fail("the index {} is not whole", path.string());
    reader.push(piece);
    for (auto told = reader.next(); !told || *told; told = reader.next()) {
      const auto* part = told ? std::get_if<disk::SeedPart>(&**told) : nullptr;
      if (part == nullptr) return fail("the index {} is damaged", path.string());
      if (part->digests.empty()) return blocks;
      std::uint64_t offset = part->offset;
      for (const disk::Digest& digest : part->digests) {
        blocks.push_back({.digest = digest, .offset = offset});
        offset += disk::kBlockBytes;
      }
    }
  }
}

Result<> make_index(const Content& content, BytesView key, const fs::path& path,
                    const fs::path& directory, const std::atomic<bool>& cancelled) {
  const Bytes header = stamp_of(content, key);
  if (header.empty()) return fail("{}", errno_text("look at " + content.paths.file.string()));
  const fs::path partial = path.string() + ".partial", pages = pages_of(path).string() + ".partial";
  std::ofstream file(partial, std::ios::binary | std::ios::trunc);
  write(file, header);
  std::optional<PageIndex> page_index;
  DiskDigests::Seen seen;
  if (content.is_image) {
    page_index.emplace(pages, header, key);
    seen = [&](std::uint64_t offset, BytesView bytes) { page_index->add(offset, bytes); };
  }
  auto done = Indexing(content, key, file, seen, cancelled).run(directory);
  if (done && !file.flush()) done = fail("{} cannot be written", partial.string());
  if (done && page_index) done = page_index->end();
  if (done && stamp_of(content, key) != header) done = fail("it changed meanwhile");
  if (done && page_index && ::rename(pages.c_str(), pages_of(path).c_str()) != 0) {
    done = fail("{}", errno_text("rename"));
  }
  if (done && ::rename(partial.c_str(), path.c_str()) != 0) done = fail("{}", errno_text("rename"));
  ::unlink(partial.c_str());
  ::unlink(pages.c_str());
  return done;
}

}  // namespace godwit::agent

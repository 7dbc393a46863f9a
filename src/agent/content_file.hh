#pragma once
// The index of something that this host has: of each block of 64 KiB its digest, in a file of its
// own, made once and good for as long as what it is of was not written to. It is believed only as
// far as to look where it says (ContentReader). Blocks; called by any thread.
//
//    0                16                 32
//    +----------------+------------------+-----------------------------------------------+
//    | "godwit index 1" padded with zeroes | sum                                         |
//    +----------------+------------------+------------------+------------------+---------+
//    | bytes of the file | ns of its last change | its inode | bytes of the disk in it   |
//    +----------------+------------------+------------------+------------------+---------+
//    | parts as in stream 6 (disk/seed.hh), of disk 0                                    |
//    +-----------------------------------------------------------------------------------+
//
// sum: keyed digest of the 32 bytes behind it, so that an index of another key is none. Of an image
// there is an index of pages beside it (page_index.hh).
#include <atomic>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hh"
#include "disk/catalogue.hh"
#include "qemu/disk_spec.hh"

namespace godwit::agent {

// An image, or a disk of a vm that left: a disk that nobody writes to, in a file of this host.
struct Content {
  std::string name;     // of its index
  qemu::DiskSpec disk;  // as which it is read; an overlay: what is its own
  qemu::DiskPaths paths;
  bool is_image = false;  // never written to again
};

// What digests are of: its blocks, the last of which may be a part of one.
struct IndexedBlock {
  disk::Digest digest{};
  std::uint64_t offset = 0;  // bytes
};

// What an index of it as it is now begins with; empty: it cannot be looked at.
Bytes stamp_of(const Content& content, BytesView key);
// Where the index of its pages is.
std::filesystem::path pages_of(const std::filesystem::path& index);
// Its index in `file` is of what it is now, and so is that of its pages, if it is an image.
bool is_indexed(const Content& content, BytesView key, const std::filesystem::path& file);
// The error: there is none, or it is of another time.
Result<std::vector<IndexedBlock>> read_index(const Content& content, BytesView key,
                                             const std::filesystem::path& file);
// Reads all of it by way of QEMU's storage daemon, with a socket in `directory`, which is made.
Result<> make_index(const Content& content, BytesView key, const std::filesystem::path& file,
                    const std::filesystem::path& directory, const std::atomic<bool>& cancelled);

}  // namespace godwit::agent

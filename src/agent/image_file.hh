#pragma once
// What the image library's worker does with files: it copies one in while it sums it, asks qemu-img
// what it is, and reads one again. Blocks; called by any thread.
#include <atomic>
#include <filesystem>
#include <optional>
#include <string>

#include "base/units.hh"
#include "os/child.hh"
#include "os/fd.hh"

namespace godwit::agent {

// One piece of work, as the control thread watches it and ends it.
struct ImageWork {
  std::atomic<std::uint64_t> done_bytes = 0;
  std::atomic<bool> cancelled = false;
};

struct ImageSource {
  std::filesystem::path name;  // as errors call it
  os::Fd file;                 // that, open
  ByteCount size;              // of it, when it was opened
  std::string format;          // "qcow2", "raw", or empty: qemu-img tells
  std::string sha256;          // that it must have, 64 hex digits; empty: whatever it has
};

struct ImageFacts {
  std::string format;  // "qcow2" or "raw"
  ByteCount size;
  ByteCount virtual_size;
  std::string sha256;  // 64 hex digits
};

// A durable copy that nobody writes to, all of the image in that one file. `qemu`: the user that
// looks at it. The error leaves no copy.
Result<ImageFacts> copy_image(const ImageSource& source, const std::filesystem::path& copy,
                              const std::optional<os::Command::User>& qemu, ImageWork& work);

// SHA-256 of the file as the disk has it, 64 hex digits.
Result<std::string> sum_image(const std::filesystem::path& file, ImageWork& work);

// Makes what was renamed in it durable.
Result<> sync_directory(const std::filesystem::path& directory);

}  // namespace godwit::agent

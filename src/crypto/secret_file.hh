#pragma once
// Small files that must be whole or absent: written beside, synced, renamed.
#include <sys/types.h>

#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.hh"

namespace godwit::crypto {

constexpr mode_t kSecretMode = 0600;
constexpr mode_t kPublicMode = 0644;
constexpr std::size_t kMaxSecretFile = 64 * 1024;  // a PEM file has about 1 KiB

Result<> write_file(const std::filesystem::path& path, std::string_view text, mode_t mode);
// At most kMaxSecretFile bytes. A file with mode bits outside `allowed` is refused: a key that
// others can read is no secret.
Result<std::string> read_file(const std::filesystem::path& path, mode_t allowed);

}  // namespace godwit::crypto

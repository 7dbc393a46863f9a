#pragma once
// Sockets that an agent left with QEMU (Qmp::pass_descriptor), so that they are not closed when the
// agent is killed, and the next one finds them there.
#include <filesystem>
#include <string_view>

#include "os/child.hh"
#include "os/fd.hh"

namespace godwit::qemu {

// Their names there.
inline constexpr std::string_view kKeptMigration = "godwit-migration";
inline constexpr std::string_view kKeptRescue = "godwit-rescue";

// The end that accepted, or that connected.
enum class SocketEnd { kAccepted, kConnected };

// A duplicate of the one among the sockets of `process` that is this end of a connection over the
// unix socket at `path`.
Result<os::Fd> find_kept_socket(const os::Child& process, const std::filesystem::path& path,
                                SocketEnd end);

}  // namespace godwit::qemu

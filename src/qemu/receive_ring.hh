#pragma once
// What QEMU last put into a virtio NIC's receive ring, read from the guest's memory while its vCPUs
// stand (virtio 1.2, 2.7 "Split Virtqueues").
#include <string>
#include <vector>

#include "base/bytes.hh"
#include "qemu/commands.hh"

namespace godwit::qemu {

inline constexpr std::size_t kNewestBytes = 256;

// Memory as HMP's `xp /Nwx` prints it: "0000000000001000: 0x00000001 0x00000002" per line. Empty
// if it is anything else.
std::vector<std::uint32_t> parse_words(std::string_view printed);

// Follows main_loop_barrier() (trapped_frame.hh). For each NIC, by its device's id (nic_device.hh),
// the last bytes, at most kNewestBytes, of the buffer that was filled last: the end of a frame, or
// all of it with its virtio header. Empty if nothing ever came, if the guest has given the buffer's
// descriptor out again, or if QEMU does not tell (its command for it is no stable one); and where
// nothing can have been dropped, since reading it takes 8 ms: unless the ring is full or
// `stopped_by_itself`.
void newest_received_after_barrier(Qmp& qmp, const std::vector<std::string>& nics,
                                   bool stopped_by_itself,
                                   std::move_only_function<void(std::vector<Bytes>)> done);

}  // namespace godwit::qemu

#pragma once
// Tuning and measuring one TCP connection; used by bulk lanes (a control session needs none of it).
#include <cstdint>
#include <string>

#include "base/units.hh"
#include "os/fd.hh"

namespace godwit::os {

// Chooses the congestion control, e.g. "bbr"; false when the kernel does not have or allow it.
bool set_congestion_control(const Fd& fd, const std::string& name);
std::string congestion_control(const Fd& fd);  // empty for what is not TCP
// Caps the sending rate inside the kernel (SO_MAX_PACING_RATE); zero lifts the cap.
bool set_pacing_rate(const Fd& fd, BitRate rate);
// Room for what is sent and not acknowledged, beyond the kernel's limit (SO_SNDBUFFORCE) where we
// may, else up to it. The kernel counts its own structures, too, and grows it no more by itself.
bool set_send_buffer(const Fd& fd, ByteCount bytes);
// Bounds the bytes the kernel takes beyond what it can send now (TCP_NOTSENT_LOWAT), so that what
// is urgent does not queue behind them.
bool set_not_sent_low_water(const Fd& fd, ByteCount bytes);
// Fails the connection when sent bytes stay unacknowledged for so long (TCP_USER_TIMEOUT, RFC
// 5482).
bool set_user_timeout(const Fd& fd, Nanoseconds limit);

// tcp_info of tcp(7), the parts that steer a transfer. All zero for what is not TCP.
struct TcpStatus {
  Nanoseconds rtt{};
  Nanoseconds min_rtt{};
  ByteCount unsent;               // taken from us, not yet sent (tcpi_notsent_bytes)
  ByteCount unacknowledged;       // sent, not yet acknowledged (segments x mss)
  ByteCount acknowledged;         // in all
  std::uint32_t retransmits = 0;  // segments, in all
  BitRate delivery_rate;
  // BBR still looks for the path's rate, sending up to 2.9 times what it has found so far.
  bool starting_up = false;
};
TcpStatus tcp_status(const Fd& fd);

}  // namespace godwit::os

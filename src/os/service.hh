#pragma once
// To the service manager that started us, if one did (sd_notify(3), Type=notify): a datagram to the
// socket named in NOTIFY_SOCKET.

namespace godwit::os {

// "READY=1": we answer from now on. The name of the socket is taken out of the environment, so that
// what we start cannot speak for us. Nothing to tell, or nobody who listens: no harm.
void tell_service_ready();

}  // namespace godwit::os

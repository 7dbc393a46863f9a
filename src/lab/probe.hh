#pragma once
// `godwit lab probe`: the lab's client. It exchanges 1,000 packets per second each way and verified
// TCP bytes with godwit-guest, and tells as JSON lines what a client of the vm saw.
//
//   godwit lab probe ADDRESS [--for 30s] [--rate 1000] [--connections 4] [--settle 2s]
//                    [--tcp-every 10ms] [--tcp-bytes 1024] [--port 7007] [--control-port 7008]
//
// On stdin: "mark NAME start", "mark NAME end", "stop". It ends after --for, at "stop", at the end
// of stdin, or at SIGINT. On stdout, one object per line, told apart by "event":
//   ready    every direction works and every connection is up: measuring begins
//   window   the figures of a window, a settle time after its end
//   summary  all windows again, and "total" for the whole run
//   error    what went wrong; the exit status is 1
// Exit status 0 says that the run took place, not that the figures are good. Times are
// CLOCK_REALTIME from the kernel's receive timestamps, so that they can be compared with a packet
// capture.

namespace godwit::lab {

int probe_main(int argc, const char* const* argv);

}  // namespace godwit::lab

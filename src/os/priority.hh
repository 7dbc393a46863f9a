#pragma once
// The calling thread's share of a CPU that others want too, sched(7).

namespace godwit::os {

// Puts the calling thread, and no other of its process, before ordinary work (nice -5).
// False: it may not (CAP_SYS_NICE), and goes on as it was.
bool put_thread_first();

}  // namespace godwit::os

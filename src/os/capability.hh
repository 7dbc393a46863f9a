#pragma once
// What this thread may do beyond its user's rights, capabilities(7): as root, or as a service to
// which its manager gave some.

namespace godwit::os {

// `capability`: CAP_SETUID, ... of <linux/capability.h>. Whether it is effective now.
bool has_capability(int capability);

}  // namespace godwit::os

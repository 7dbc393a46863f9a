#pragma once
// The key of all digests that this host makes of what it has, and tells to hosts that vms come
// from: of blocks of disks (contents.hh) and of pages of memory (known_memory.hh, image_pages.hh).
// Made once, and kept in the agent's store: indexes outlive the agent.
#include "base/bytes.hh"
#include "store/store.hh"

namespace godwit::agent {

// KeyedHash::kKeySize random bytes; if they cannot be kept, others each time.
Bytes digest_key(store::Store& store);

}  // namespace godwit::agent

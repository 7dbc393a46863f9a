#pragma once
// Notices between hosts of two fleets (base/host_name.hh). A host names others as its own fleet
// does, so its words are put into ours when they come, and ours into its when they go:
//
//   b1 of beta says "port y is at b2"  ──▶  here: y is at b2@beta
//
// Of what is not its own a host of another fleet has nothing to say: it can neither make a port of
// ours be elsewhere, nor one of its own be here or in a third fleet.
#include <optional>
#include <string>

#include "wire/control.hh"

namespace godwit::wire {

// What a notice of `host` means here, `theirs` being the port at its end of the wire; nothing: it
// has no say in that.
std::optional<Notice> as_heard(const std::string& host, const PortId& theirs, Notice notice);
// What to tell `host`.
Notice as_told(const std::string& host, Notice notice);

}  // namespace godwit::wire

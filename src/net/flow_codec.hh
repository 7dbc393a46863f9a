#pragma once
// Flows as bytes (docs/protocol/component-state.md), as they travel to another host. Hostile input.
#include <optional>

#include "base/bytes.hh"
#include "net/flow.hh"

namespace godwit::net {

void write_tuple(Writer& to, const Tuple& tuple);
// Empty: there is none such, or the reader has failed.
std::optional<Tuple> read_tuple(Reader& from);

// All of it, its times from `now`.
void write_flow(Writer& to, const Flow& flow, Instant now);
std::optional<Flow> read_flow(Reader& from, Instant now);

}  // namespace godwit::net

// What a tracker has seen, told to another instance of it (docs/protocol/component-state.md).
//
// NAT's seed is told, too: which address and port an inside endpoint has outside follows from it
// where it is not its own, so that it has the same there for its later flows (RFC 4787, REQ-1 and
// REQ-2). Tables of flows are hashed with what stays here.
#include "net/flow_codec.hh"
#include "net/tracker.hh"

namespace godwit::net {

void Tracker::begin_state() {
  is_seed_untold_ = true;
  table_.begin_account();
}

void Tracker::end_state() {
  is_seed_untold_ = false;
  table_.end_account();
}

void Tracker::take_state(StateWriter& state, Instant now) {
  if (is_seed_untold_ && !config_.nat.is_empty() && !state.is_full()) {
    is_seed_untold_ = false;
    state.row(StateKind::nat_seed).u64(seed_);
  }
  const auto gone = [&] { return table_.next_gone(); };
  state.rows(StateKind::gone_flows, gone, write_tuple);
  state.rows(
      StateKind::flows, [&] { return table_.next_untold(now); },
      [now](Writer& row, const Flow& flow) { write_flow(row, flow, now); });
  state.rows(StateKind::gone_flows, gone, write_tuple);  // of these, those that have ended by now
}

Result<> Tracker::load_state(const StateSection& section, Instant now) {
  switch (section.kind) {
    case StateKind::nat_seed:
      return read_rows(section, [&](Reader& row) {
        seed_ = row.u64();
        claims_.use_seed(seed_);
        return row.ok();
      });
    case StateKind::gone_flows:
      return read_rows(section, [&](Reader& row) {
        const auto tuple = read_tuple(row);
        if (tuple) table_.remove(*tuple);
        return tuple.has_value();
      });
    case StateKind::flows:
      return read_rows(section, [&](Reader& row) {
        const auto flow = read_flow(row, now);
        if (!flow || !table_.put(*flow)) return false;
        claim_again(config_.nat, claims_, *flow, seed_);
        return true;
      });
    default:
      return not_known(section);
  }
}

}  // namespace godwit::net

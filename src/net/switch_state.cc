// What a switch has learned, told to another instance of it (docs/protocol/component-state.md).
#include "net/state.hh"
#include "net/switch.hh"

namespace godwit::net {
namespace {

void write_key(Writer& to, const GroupTable::Key& key) {
  to.u16(key.vlan).u16(key.port);
  write_mac(to, key.group);
}
GroupTable::Key read_key(Reader& from) {
  const Vlan vlan = from.u16();
  const PortIndex port = from.u16();
  return {.vlan = vlan, .group = read_mac(from), .port = port};
}

bool is_station(Vlan vlan, Mac mac) { return vlan <= kMostVlan && mac != 0 && !is_group(mac); }
bool is_possible(const GroupTable::Key& key) {
  return key.vlan <= kMostVlan && (key.group == 0 || is_group(key.group));
}

}  // namespace

void Switch::begin_state() {
  macs_.begin_account();
  groups_.begin_account();
}

std::size_t Switch::untold() const { return macs_.untold() + groups_.untold(); }

void Switch::end_state() {
  macs_.end_account();
  groups_.end_account();
}

Bytes Switch::take_state(std::size_t most, Instant now) {
  StateWriter state(most);
  state.rows(StateKind::gone_groups, [&] { return groups_.next_gone(); }, write_key);
  state.rows(
      StateKind::groups, [&] { return groups_.next_untold(); },
      [&](Writer& row, const GroupTable::Entry& entry) {
        write_key(row, entry.key);
        write_ms(row, entry.until - now);
      });
  state.rows(
      StateKind::gone_macs, [&] { return macs_.next_gone(); },
      [&](Writer& row, const MacTable::Entry& gone) { write_mac(row.u16(gone.vlan), gone.mac); });
  state.rows(
      StateKind::macs, [&] { return macs_.next_untold(); },
      [&](Writer& row, const MacTable::Entry& entry) {
        write_mac(row.u16(entry.vlan).u16(entry.port), entry.mac);
        write_ms(row, now - entry.seen);
      });
  return state.take();
}

bool Switch::carries(PortIndex port, Vlan vlan) const {
  return port < ports_.size() && ports_[port].carries.test(vlan);
}

// What can be nobody's is refused; what has no place by the settings here is passed over.
Result<> Switch::load_state(BytesView message, Instant now) {
  return load_sections(message, [&](const StateSection& section) -> Result<> {
    switch (section.kind) {
      case StateKind::gone_groups:
        return read_rows(section, [&](Reader& row) {
          const GroupTable::Key key = read_key(row);
          if (!row.ok() || !is_possible(key)) return false;
          return groups_.remove(key), true;
        });
      case StateKind::groups:
        return read_rows(section, [&](Reader& row) {
          const GroupTable::Key key = read_key(row);
          const Nanoseconds remaining = read_ms(row);
          if (!row.ok() || !is_possible(key)) return false;
          if (carries(key.port, key.vlan)) groups_.put({key, now + remaining}, now);
          return true;
        });
      case StateKind::gone_macs:
        return read_rows(section, [&](Reader& row) {
          const Vlan vlan = row.u16();
          const Mac mac = read_mac(row);
          if (!row.ok() || !is_station(vlan, mac)) return false;
          return macs_.remove(vlan, mac), true;
        });
      case StateKind::macs:
        return read_rows(section, [&](Reader& row) {
          MacTable::Entry entry{.vlan = row.u16()};
          entry.port = row.u16();
          entry.mac = read_mac(row);
          entry.seen = now - read_ms(row);
          if (!row.ok() || !is_station(entry.vlan, entry.mac)) return false;
          if (carries(entry.port, entry.vlan)) macs_.put(entry);
          return true;
        });
      default:
        return not_known(section);
    }
  });
}

}  // namespace godwit::net

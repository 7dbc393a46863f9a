// What a router has learned, told to another instance of it (docs/protocol/component-state.md):
// neighbours, with the frames that wait for them; its tracker's flows.
#include "net/router.hh"
#include "net/state.hh"
#include "wire/datagram.hh"

namespace godwit::net {
namespace {

enum Flag : std::uint8_t { kIp4 = 1, kHasMac = 2, kIsUsed = 4, kFrameFollows = 8 };
constexpr std::uint8_t kFlags = 15;

void write_key(Writer& to, const Neighbours::Key& who, int flags) {
  to.u16(who.port).u8(static_cast<std::uint8_t>(flags | (who.ip.is4() ? kIp4 : 0)));
  if (who.ip.is4()) {
    to.u32(who.ip.as4());
  } else {
    to.u64(who.ip.high).u64(who.ip.low);
  }
}
Neighbours::Key read_key(Reader& from, std::uint8_t& flags) {
  Neighbours::Key who{.port = from.u16()};
  flags = from.u8();
  if ((flags & kIp4) != 0) {
    who.ip = Ip::of4(from.u32());
  } else {
    who.ip.high = from.u64();
    who.ip.low = from.u64();
  }
  return who;
}

void write_neighbour(Writer& to, const Neighbours::Told& told, Instant now) {
  const auto& [who, mac] = told.entry;
  write_key(to, who,
            (mac ? kHasMac : 0) | (told.is_used ? kIsUsed : 0) | (told.frame ? kFrameFollows : 0));
  write_ms(to, told.due - now);
  if (mac) write_mac(to, *mac);
  if (told.frame) to.u32(static_cast<std::uint32_t>(told.frame->size())).bytes(*told.frame);
}

bool is_frame(BytesView bytes) {
  return bytes.size() >= kPayloadAt && bytes.size() <= wire::kMaxFrameBytes;
}

}  // namespace

void Router::begin_state() {
  keeps_state_ = true;
  neighbours_.begin_account();
  if (tracker_) tracker_->begin_state();
}

std::size_t Router::untold() const {
  return neighbours_.untold() + (tracker_ ? tracker_->untold() : 0);
}

void Router::end_state() {
  keeps_state_ = false;
  neighbours_.end_account();
  if (tracker_) tracker_->end_state();
}

Bytes Router::take_state(std::size_t most, Instant now) {
  StateWriter state(most);
  state.rows(
      StateKind::gone_neighbours, [&] { return neighbours_.next_gone(); },
      [](Writer& row, const Neighbours::Key& who) { write_key(row, who, 0); });
  state.rows(
      StateKind::neighbours, [&] { return neighbours_.next_untold(); },
      [now](Writer& row, const Neighbours::Told& each) { write_neighbour(row, each, now); });
  if (tracker_) tracker_->take_state(state, now);
  return state.take();
}

Result<> Router::load_state(BytesView message, Instant now) {
  return load_sections(message, [&](const StateSection& section) -> Result<> {
    switch (section.kind) {
      case StateKind::gone_neighbours:
        return read_rows(section, [&](Reader& row) {
          std::uint8_t flags = 0;
          const Neighbours::Key who = read_key(row, flags);
          if (!row.ok() || (flags & ~kIp4) != 0) return false;
          return neighbours_.remove(who), true;
        });
      case StateKind::neighbours:
        return read_rows(section, [&](Reader& row) { return read_neighbour(row, now); });
      case StateKind::nat_seed:
      case StateKind::gone_flows:
      case StateKind::flows:
        return tracker_ ? tracker_->load_state(section, now) : Result<>{};  // has no rules any more
      default:
        return not_known(section);
    }
  });
}

bool Router::read_neighbour(Reader& row, Instant now) {
  std::uint8_t flags = 0;
  Neighbours::Told told{.entry = {.who = read_key(row, flags)}};
  auto& [who, mac] = told.entry;
  told.due = now + read_ms(row);
  told.is_used = (flags & kIsUsed) != 0;
  if ((flags & kHasMac) != 0) mac = read_mac(row);
  if ((flags & kFrameFollows) != 0) told.frame = row.bytes(row.u32());
  if (!row.ok() || (flags & ~kFlags) != 0 || (told.frame && !is_frame(*told.frame))) return false;
  if (mac && (is_group(*mac) || *mac == 0)) return false;
  const bool has_place = who.port < ports_.size() && ports_[who.port].exists && !is_own(who.ip);
  if (has_place && !who.ip.is_unspecified()) neighbours_.put(told, now);
  return true;
}

}  // namespace godwit::net

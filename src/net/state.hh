#pragma once
// Messages about what a component has learned (docs/protocol/component-state.md): sections of rows,
// each row of one thing that is known, or is no more. Times are ages and what remains, as clocks of
// two hosts have nothing in common. What is read here comes from another host: hostile input.
#include <optional>
#include <vector>

#include "base/bytes.hh"
#include "base/result.hh"
#include "base/units.hh"
#include "net/mac_table.hh"

namespace godwit::net {

enum class StateKind : std::uint16_t {
  gone_macs = 1,
  macs = 2,
  gone_groups = 3,
  groups = 4,
  nat_seed = 5,
  gone_flows = 6,
  flows = 7,
  gone_neighbours = 8,
  neighbours = 9,
  gone_leases = 10,
  leases = 11,
};

class StateWriter final {
 public:
  explicit StateWriter(std::size_t most) : most_(most) {}
  // For a row's fields; rows of one kind that follow each other are one section.
  Writer& row(StateKind kind);
  // Of all that `next` gives, until it gives nothing, or there is enough.
  template <class Next, class Write>
  void rows(StateKind kind, Next next, Write write) {
    while (!is_full()) {
      const auto each = next();
      if (!each) return;
      write(row(kind), *each);
    }
  }
  bool is_full() const { return bytes_.size() >= most_; }
  // Empty: there were no rows.
  Bytes take();

 private:
  void close();

  std::size_t most_;
  Bytes bytes_{};
  Writer writer_{bytes_};
  std::optional<StateKind> open_{};
  std::size_t payload_at_ = 0;
};

struct StateSection {
  StateKind kind{};
  BytesView payload{};
};
// In order. Kinds are not looked at: not_known() is for who has no use for one.
Result<std::vector<StateSection>> read_state(BytesView message);
std::unexpected<Error> not_known(const StateSection& section);

// `load` takes a section; the first that it has no use for ends it.
template <class Load>
Result<> load_sections(BytesView message, Load load) {
  const auto sections = read_state(message);
  if (!sections) return std::unexpected(sections.error());
  for (const StateSection& section : *sections) {
    if (Result<> done = load(section); !done) return done;
  }
  return {};
}

// `read` takes a row from a Reader; false: there can be no such row.
template <class Read>
Result<> read_rows(const StateSection& section, Read read) {
  Reader reader(section.payload);
  while (reader.remaining() > 0) {
    if (!read(reader)) reader.fail();
  }
  if (reader.ok()) return {};
  return fail("state of a component: a row of section {} is damaged",
              static_cast<std::uint16_t>(section.kind));
}

inline void write_mac(Writer& to, Mac mac) {
  to.u16(static_cast<std::uint16_t>(mac >> 32)).u32(static_cast<std::uint32_t>(mac));
}
inline Mac read_mac(Reader& from) {
  const std::uint64_t high = from.u16();
  return high << 32 | from.u32();
}
// Milliseconds, rounded down; of a negative time none, of more than 49 days as many as there can
// be.
void write_ms(Writer& to, Nanoseconds time);
inline Nanoseconds read_ms(Reader& from) { return milliseconds(from.u32()); }
// Nanoseconds, at most 146 years: more are an error. Of a negative time none.
void write_ns(Writer& to, Nanoseconds time);
Nanoseconds read_ns(Reader& from);

}  // namespace godwit::net

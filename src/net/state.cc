#include "net/state.hh"

#include <algorithm>
#include <limits>

#include "base/check.hh"

namespace godwit::net {
namespace {

constexpr std::uint8_t kVersion = 1, kSectionVersion = 1;
constexpr std::size_t kLengthBytes = 4;
constexpr std::uint64_t kMostNs = std::uint64_t{1}
                                  << 62;  // from any reading of a clock, either way

}  // namespace

Writer& StateWriter::row(StateKind kind) {
  if (open_ == kind) return writer_;
  if (bytes_.empty()) writer_.u8(kVersion);
  close();
  writer_.u16(static_cast<std::uint16_t>(kind)).u8(kSectionVersion).u8(0).u32(0);
  open_ = kind;
  payload_at_ = bytes_.size();
  return writer_;
}

void StateWriter::close() {
  if (!open_) return;
  const std::size_t length = bytes_.size() - payload_at_;
  CHECK(length <= std::numeric_limits<std::uint32_t>::max(), "a section of {} bytes", length);
  to_big_endian(static_cast<std::uint32_t>(length), &bytes_[payload_at_ - kLengthBytes]);
  open_.reset();
}

Bytes StateWriter::take() {
  close();
  return std::exchange(bytes_, {});
}

Result<std::vector<StateSection>> read_state(BytesView message) {
  Reader reader(message);
  if (const auto version = reader.u8(); reader.ok() && version != kVersion) {
    return fail("state of a component: version {} is not known here, but {}", version, kVersion);
  }
  std::vector<StateSection> all;
  while (reader.remaining() > 0) {
    const StateSection head{.kind = static_cast<StateKind>(reader.u16())};
    const std::uint8_t version = reader.u8(), zero = reader.u8();
    const StateSection section{.kind = head.kind, .payload = reader.bytes(reader.u32())};
    if (!reader.ok()) break;
    if (version != kSectionVersion || zero != 0) return not_known(section);
    all.push_back(section);
  }
  if (!reader.ok()) return fail("state of a component: the message is cut off");
  return all;
}

std::unexpected<Error> not_known(const StateSection& section) {
  return fail("state of a component: section {} is not known here, or not in this version",
              static_cast<std::uint16_t>(section.kind));
}

void write_ms(Writer& to, Nanoseconds time) {
  constexpr std::int64_t kMost = std::numeric_limits<std::uint32_t>::max();
  const std::int64_t ms = duration_cast<milliseconds>(time).count();
  to.u32(static_cast<std::uint32_t>(std::clamp<std::int64_t>(ms, 0, kMost)));
}

void write_ns(Writer& to, Nanoseconds time) {
  const auto ns = static_cast<std::uint64_t>(std::max(time, Nanoseconds(0)).count());
  to.u64(std::min(ns, kMostNs));
}

Nanoseconds read_ns(Reader& from) {
  const std::uint64_t ns = from.u64();
  if (ns > kMostNs) return from.fail(), Nanoseconds(0);
  return Nanoseconds(static_cast<std::int64_t>(ns));
}

}  // namespace godwit::net

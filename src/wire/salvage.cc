#include "wire/salvage.hh"

#include <algorithm>
#include <bit>

#include "base/check.hh"

namespace godwit::wire {
namespace {

constexpr auto kTcpFin = std::byte{0x01};
constexpr auto kTcpPsh = std::byte{0x08};
constexpr auto kTcpCwr = std::byte{0x80};

std::uint16_t fold(std::uint32_t sum) {
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

// RFC 1071, over an even number of bytes.
std::uint16_t internet_checksum(BytesView bytes) {
  std::uint32_t sum = 0;
  for (std::size_t at = 0; at + 1 < bytes.size(); at += 2) {
    sum += from_big_endian<std::uint16_t>(&bytes[at]);
  }
  return static_cast<std::uint16_t>(~fold(sum));
}

// RFC 1624, equation 3, on a sum that is not complemented: replaces a 16-bit term.
void replace_term(std::byte* sum, std::size_t before, std::size_t after) {
  const std::uint32_t without = ~static_cast<std::uint32_t>(before) & 0xffff;
  to_big_endian(
      fold(from_big_endian<std::uint16_t>(sum) + without + static_cast<std::uint32_t>(after)), sum);
}

void add16(std::byte* at, std::size_t value) {
  to_big_endian(static_cast<std::uint16_t>(from_big_endian<std::uint16_t>(at) + value), at);
}

}  // namespace

Salvage::Salvage(BytesView fragments, std::size_t chunk, FragmentSet received)
    : fragments_(fragments), chunk_(chunk), received_(received) {
  const auto missing = static_cast<std::size_t>(std::countr_one(received));
  const BytesView head = fragments.first(std::min(missing * chunk, fragments.size()));
  if (head.size() < kMinFrameBytes) return;
  vnet_ = read_vnet(head.first<kVnetBytes>());
  const auto layout = parse_super_frame(vnet_, head.subspan(kVnetBytes));
  // The last byte at least is padding.
  if (!layout || kVnetBytes + layout->end >= fragments.size()) return;
  layout_ = *layout;
  payload_ = layout_.end - layout_.payload;
  segments_ = (payload_ + vnet_.gso_size - 1) / vnet_.gso_size;
}

std::size_t Salvage::payload_offset(std::size_t segment) const {
  return kVnetBytes + layout_.payload + std::min(segment * vnet_.gso_size, payload_);
}

bool Salvage::is_whole(std::size_t segment, FragmentSet received) const {
  const FragmentSet needed =
      fragments_of(payload_offset(segment), payload_offset(segment + 1), chunk_) |
      fragments_of(0, kVnetBytes + layout_.payload, chunk_);
  return (needed & ~received) == 0;
}

SegmentRun Salvage::next_run(std::size_t from, FragmentSet before) const {
  const auto is_new = [&](std::size_t segment) {
    return is_whole(segment, received_) && !is_whole(segment, before);
  };
  while (from < segments_ && !is_new(from)) ++from;
  SegmentRun run{.first = from};
  while (from < segments_ && is_new(from)) ++from;
  run.count = from - run.first;
  return run;
}

MutableBytes Salvage::write(SegmentRun run, MutableBytes out) const {
  const std::size_t from = payload_offset(run.first);
  const std::size_t to = payload_offset(run.first + run.count);
  const std::size_t headers = kVnetBytes + layout_.payload;
  const BytesView payload = fragments_.subspan(from, to - from);
  CHECK(headers + payload.size() <= out.size());
  std::copy_n(fragments_.begin(), headers, out.begin());
  std::copy(payload.begin(), payload.end(), out.begin() + static_cast<std::ptrdiff_t>(headers));

  VnetHeader vnet = vnet_;
  vnet.header_len = static_cast<std::uint16_t>(layout_.payload);
  if (run.first > 0) vnet.gso &= static_cast<std::uint8_t>(~kGsoEcn);
  if (run.count == 1) vnet.gso = 0, vnet.gso_size = 0;
  write_vnet(vnet, out.first<kVnetBytes>());

  const MutableBytes ethernet = out.subspan(kVnetBytes);
  fix_ip(ethernet, run, payload.size());
  const MutableBytes l4 = ethernet.subspan(layout_.l4);
  // The seed holds the length of the layer-4 header and payload (RFC 9293, 3.1; RFC 768).
  const std::size_t l4_header = layout_.payload - layout_.l4;
  replace_term(&l4[vnet_.csum_offset], l4_header + payload_, l4_header + payload.size());
  if (layout_.is_udp) {
    to_big_endian(static_cast<std::uint16_t>(l4_header + payload.size()), &l4[4]);
  } else {
    fix_tcp(l4, run);
  }
  return out.first(headers + payload.size());
}

void Salvage::fix_ip(MutableBytes ethernet, SegmentRun run, std::size_t payload) const {
  const MutableBytes ip = ethernet.subspan(layout_.l3, layout_.l4 - layout_.l3);
  if (layout_.is_ip6) {
    add16(&ip[4], payload - payload_);  // modulo 2^16: shrinks
    return;
  }
  add16(&ip[2], payload - payload_);
  add16(&ip[4], run.first);  // segment k has id + k
  to_big_endian(std::uint16_t{0}, &ip[10]);
  to_big_endian(internet_checksum(ip), &ip[10]);
}

void Salvage::fix_tcp(MutableBytes tcp, SegmentRun run) const {
  const auto skipped = static_cast<std::uint32_t>(run.first * vnet_.gso_size);
  to_big_endian(from_big_endian<std::uint32_t>(&tcp[4]) + skipped, &tcp[4]);
  if (run.first > 0) tcp[13] &= ~kTcpCwr;
  if (run.first + run.count < segments_) tcp[13] &= ~(kTcpFin | kTcpPsh);
}

}  // namespace godwit::wire

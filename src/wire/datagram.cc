#include "wire/datagram.hh"

#include <algorithm>

namespace godwit::wire {
namespace {

constexpr std::byte version_and_type(DatagramType type) {
  return std::byte{kDatagramVersion << 4} | static_cast<std::byte>(type);
}

bool is_this_version(BytesView datagram) {
  return datagram.size() >= kDatagramOverhead && (datagram[0] >> 4) == std::byte{kDatagramVersion};
}

}  // namespace

void write_header(const DatagramHeader& header, HeaderBytes out) {
  out[0] = version_and_type(header.type);
  out[1] = std::byte{header.epoch};
  out[2] = std::byte{header.index};
  out[3] = std::byte{header.count};
  to_big_endian(header.receiver_index, &out[4]);
  to_big_endian(header.counter, &out[8]);
}

std::optional<DatagramHeader> read_header(BytesView datagram) {
  if (!is_this_version(datagram)) return std::nullopt;
  const auto type = std::to_integer<std::uint8_t>(datagram[0] & std::byte{0x0f});
  if (type > static_cast<std::uint8_t>(DatagramType::message)) return std::nullopt;
  const DatagramHeader header{
      .type = static_cast<DatagramType>(type),
      .epoch = std::to_integer<std::uint8_t>(datagram[1]),
      .index = std::to_integer<std::uint8_t>(datagram[2]),
      .count = std::to_integer<std::uint8_t>(datagram[3]),
      .receiver_index = from_big_endian<std::uint32_t>(&datagram[4]),
      .counter = from_big_endian<std::uint64_t>(&datagram[8]),
  };
  const bool consistent = header.type == DatagramType::fragment
                              ? header.index < header.count && header.count <= kMaxFragments &&
                                    header.counter >= header.index
                              : header.index == 0 && header.count == 0;
  if (!consistent) return std::nullopt;
  return header;
}

std::optional<std::uint32_t> receiver_index(BytesView datagram) {
  if (!is_this_version(datagram)) return std::nullopt;
  return from_big_endian<std::uint32_t>(&datagram[4]);
}

DatagramAad make_aad(Epoch epoch, BytesView datagram) {
  DatagramAad aad;
  to_big_endian(epoch, aad.data());
  std::copy_n(datagram.begin(), 4, aad.begin() + 4);
  return aad;
}

crypto::AeadNonce nonce_of(BytesView datagram) {
  return crypto::AeadNonce(datagram.subspan(4, crypto::kAeadNonceBytes));
}

}  // namespace godwit::wire

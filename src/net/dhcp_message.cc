#include "net/dhcp_message.hh"

#include <algorithm>
#include <ranges>

namespace godwit::net {
namespace {

constexpr std::uint8_t kBootRequest = 1, kBootReply = 2, kEthernet = 1;
constexpr std::uint32_t kCookie = 0x63825363;
constexpr std::size_t kLeastReply = 300;  // BOOTP's, which old relays insist on (RFC 1542, 2.1)

enum Option : std::uint8_t {
  kPad = 0,
  kMask = 1,
  kRouter = 3,
  kDns = 6,
  kHostName = 12,
  kDomain = 15,
  kMtu = 26,
  kBroadcastAddress = 28,
  kRequested = 50,
  kLeaseTime = 51,
  kType = 53,
  kServer = 54,
  kParameters = 55,
  kMessage = 56,
  kRenewal = 58,
  kRebinding = 59,
  kIdentifier = 61,
  kRoutes = 121,
  kEnd = 255
};

std::optional<Ip> address_in(BytesView value) {
  return value.size() == 4 ? std::optional(Ip::at4(value.data())) : std::nullopt;
}

void read_option(std::uint8_t option, BytesView value, DhcpRequest& request, bool& has_type) {
  switch (option) {
    case kType:
      has_type = value.size() == 1;
      if (has_type) request.type = static_cast<DhcpType>(value[0]);
      break;
    case kRequested:
      request.requested = address_in(value);
      break;
    case kServer:
      request.server = address_in(value);
      break;
    case kIdentifier:
      if (value.size() >= 2) request.identifier = to_bytes(value);
      break;
    case kHostName:
      request.host = as_text(value);
      break;
    case kParameters:
      request.wants_routes = std::ranges::find(value, std::byte{kRoutes}) != value.end();
      break;
    default:
      break;
  }
}

// False: they are cut off.
bool read_options(Reader reader, DhcpRequest& request) {
  bool has_type = false;
  while (reader.remaining() > 0) {
    const std::uint8_t option = reader.u8();
    if (option == kEnd) break;
    if (option == kPad) continue;
    read_option(option, reader.bytes(reader.u8()), request, has_type);
  }
  return reader.ok() && has_type;
}

bool is_clients(DhcpType type) {
  return type == DhcpType::discover || type == DhcpType::request || type == DhcpType::decline ||
         type == DhcpType::release || type == DhcpType::inform;
}

// At most 255 bytes, of which a text loses its end, and a list its last.
void put(std::uint8_t option, BytesView value, Bytes& out) {
  if (value.empty()) return;
  const BytesView fits = value.first(std::min<std::size_t>(value.size(), 255));
  Writer(out).u8(option).u8(static_cast<std::uint8_t>(fits.size())).bytes(fits);
}
void put_number(std::uint8_t option, std::uint32_t value, Bytes& out) {
  Writer(out).u8(option).u8(4).u32(value);
}

std::uint32_t mask_of(std::uint8_t length) {
  return length == 0 ? 0 : ~std::uint32_t{0} << (32 - length);
}

void put_dns(const std::vector<Ip>& servers, Bytes& out) {
  Bytes value;
  for (const Ip& server : servers | std::views::take(63)) Writer(value).u32(server.as4());
  put(kDns, value, out);
}

void add_route(const IpPrefix& to, Ip via, Bytes& value) {
  Bytes route;
  Writer(route).u8(to.length);
  for (int i = 0; i < (to.length + 7) / 8; ++i) {
    route.push_back(static_cast<std::byte>(to.address.as4() >> (24 - 8 * i)));
  }
  Writer(route).u32(via.as4());
  if (value.size() + route.size() <= 255) append(value, route);
}

// RFC 3442: a client that takes these does not look at the router's option.
void put_routes(const DhcpOptions& options, Bytes& out) {
  Bytes value;
  for (const DhcpRoute& route : options.routes) add_route(route.to, route.via, value);
  if (options.router && !options.routes.empty()) {
    add_route({Ip::of4(0), 0}, *options.router, value);
  }
  put(kRoutes, value, out);
}

void put_network(const DhcpRequest& request, const DhcpOptions& options, Bytes& out) {
  put_number(kMask, mask_of(options.length), out);
  if (options.router) put_number(kRouter, options.router->as4(), out);
  put_dns(options.dns, out);
  put(kDomain, as_bytes(options.domain), out);
  if (options.mtu != 0) Writer(out).u8(kMtu).u8(2).u16(options.mtu);
  if (request.wants_routes) put_routes(options, out);
}

}  // namespace

std::optional<DhcpRequest> read_dhcp(BytesView payload) {
  Reader reader(payload);
  DhcpRequest request;
  const bool is_request =
      reader.u8() == kBootRequest && reader.u8() == kEthernet && reader.u8() == 6;
  reader.u8();  // hops
  request.transaction = reader.u32();
  request.seconds = reader.u16();
  request.flags = reader.u16();
  request.client = Ip::of4(reader.u32());
  reader.bytes(8);  // yiaddr, siaddr
  request.relay = Ip::of4(reader.u32());
  const BytesView hardware = reader.bytes(16);
  reader.bytes(64 + 128);  // sname, file
  if (reader.u32() != kCookie || !is_request || !reader.ok()) return std::nullopt;
  request.mac = mac_at(hardware.data());
  request.identifier = {std::byte{kEthernet}};
  append(request.identifier, hardware.first(6));
  if (!read_options(reader, request) || !is_clients(request.type) || is_group(request.mac)) {
    return std::nullopt;
  }
  return request;
}

void write_dhcp(const DhcpRequest& request, const DhcpAnswer& answer, const DhcpOptions* options,
                Bytes& out) {
  out.clear();
  const bool keeps_client = answer.type == DhcpType::ack;
  Writer(out)
      .u8(kBootReply)
      .u8(kEthernet)
      .u8(6)
      .u8(0)
      .u32(request.transaction)
      .u16(0)
      .u16(request.flags)
      .u32(keeps_client ? request.client.as4() : 0)
      .u32(answer.yours.as4())
      .u32(0)
      .u32(request.relay.as4());
  append_mac(request.mac, out);
  out.resize(236);
  Writer(out).u32(kCookie).u8(kType).u8(1).u8(static_cast<std::uint8_t>(answer.type));
  put_number(kServer, answer.server.as4(), out);
  if (answer.lease_s != 0) {
    put_number(kLeaseTime, answer.lease_s, out);
    put_number(kRenewal, answer.lease_s / 2, out);
    put_number(kRebinding, answer.lease_s - answer.lease_s / 8, out);
  }
  if (options != nullptr) put_network(request, *options, out);
  put(kMessage, as_bytes(answer.why), out);
  Writer(out).u8(kEnd);
  out.resize(std::max(out.size(), kLeastReply));
}

}  // namespace godwit::net

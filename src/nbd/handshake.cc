#include "nbd/handshake.hh"

#include <algorithm>
#include <optional>
#include <utility>

namespace godwit::nbd {
namespace {

constexpr std::size_t kClientFlags = 4;  // bytes

// Data of INFO and GO.
struct InfoRequest {
  std::string_view name;
  bool wants_name = false;  // the rest is told in any case
};

std::optional<InfoRequest> decode_info_request(BytesView data) {
  Reader reader(data);
  InfoRequest request;
  request.name = as_text(reader.bytes(reader.u32()));
  const std::size_t count = reader.u16();
  for (std::size_t i = 0; i < count && reader.ok(); ++i) {
    if (reader.u16() == std::to_underlying(Info::kName)) request.wants_name = true;
  }
  if (!reader.finished()) return std::nullopt;
  return request;
}

Bytes export_info(const Export& disk, bool structured_replies) {
  Bytes info;
  Writer(info)
      .u16(std::to_underlying(Info::kExport))
      .u64(disk.size.bytes)
      .u16(transmission_flags(disk, structured_replies));
  return info;
}

Bytes name_info(const Export& disk) {
  Bytes info;
  Writer(info).u16(std::to_underlying(Info::kName)).bytes(as_bytes(disk.name));
  return info;
}

Bytes block_size_info(const Export& disk) {
  Bytes info;
  Writer(info)
      .u16(std::to_underlying(Info::kBlockSize))
      .u32(static_cast<std::uint32_t>(disk.minimum_block.bytes))
      .u32(static_cast<std::uint32_t>(disk.preferred_block.bytes))
      .u32(static_cast<std::uint32_t>(kMaxPayload.bytes));
  return info;
}

}  // namespace

Handshake::Handshake(std::span<const Export> exports, Outbox& out) : exports_(exports), out_(out) {
  Bytes greeting;
  Writer(greeting).u64(kInitMagic).u64(kOptionMagic).u16(kFixedNewstyle | kNoZeroes);
  out_.append(greeting);
}

Result<Handshake::Step> Handshake::step(Inbox& in) {
  if (!has_flags_) return client_flags(in);
  if (in.bytes().size() < kOptionHeader) return Step::kNeedsMore;
  Reader header(in.bytes());
  if (const std::uint64_t magic = header.u64(); magic != kOptionMagic) {
    return fail("nbd: an option begins with {:#018x}: the client does not speak newstyle", magic);
  }
  const Option option{header.u32()};
  const std::size_t length = header.u32();
  if (length > kMaxOptionData) {
    if (length > kMaxSkipped || option == Option::kExportName) {
      return fail("nbd: option {} with {} bytes of data", std::to_underlying(option), length);
    }
    in.take(kOptionHeader);
    in.skip(length);
    return answer(option, OptionReply::kTooBig);
  }
  if (in.bytes().size() < kOptionHeader + length) {
    in.expect(kOptionHeader + length);
    return Step::kNeedsMore;
  }
  const BytesView data = in.take(kOptionHeader + length).subspan(kOptionHeader);
  switch (option) {
    case Option::kExportName:
      return export_name(data);
    case Option::kAbort:
      answer(option, OptionReply::kAck);
      return Step::kAborted;
    case Option::kList:
      return list(data);
    case Option::kInfo:
    case Option::kGo:
      return info(option, data);
    case Option::kStructuredReply:
      return structured_reply(data);
  }
  return answer(option, OptionReply::kUnsupported);
}

Result<Handshake::Step> Handshake::client_flags(Inbox& in) {
  if (in.bytes().size() < kClientFlags) return Step::kNeedsMore;
  const auto flags = from_big_endian<std::uint32_t>(in.take(kClientFlags).data());
  // Without kFixedNewstyle a client knows EXPORT_NAME only, which we answer alike.
  if ((flags & ~std::uint32_t{kFixedNewstyle | kNoZeroes}) != 0) {
    return fail("nbd: unknown client flags {:#x}", flags);
  }
  has_flags_ = true;
  no_zeroes_ = (flags & kNoZeroes) != 0;
  return Step::kTookOne;
}

Result<Handshake::Step> Handshake::export_name(BytesView name) {
  const Export* disk = find(as_text(name));
  if (disk == nullptr) return fail("nbd: the client asks for an export that there is not");
  agreement_.disk = disk;
  Bytes reply;
  Writer(reply).u64(disk->size.bytes).u16(transmission_flags(*disk, agreement_.structured_replies));
  if (!no_zeroes_) reply.resize(reply.size() + kExportNameZeroes);
  out_.append(reply);
  return Step::kTransmission;
}

Handshake::Step Handshake::info(Option option, BytesView data) {
  const auto request = decode_info_request(data);
  if (!request) return answer(option, OptionReply::kInvalid);
  const Export* disk = find(request->name);
  if (disk == nullptr) return answer(option, OptionReply::kUnknown);
  answer(option, OptionReply::kInfo, export_info(*disk, agreement_.structured_replies));
  if (request->wants_name) answer(option, OptionReply::kInfo, name_info(*disk));
  answer(option, OptionReply::kInfo, block_size_info(*disk));
  answer(option, OptionReply::kAck);
  if (option == Option::kInfo) return Step::kTookOne;
  agreement_.disk = disk;
  return Step::kTransmission;
}

Handshake::Step Handshake::list(BytesView data) {
  if (!data.empty()) return answer(Option::kList, OptionReply::kInvalid);
  for (const Export& disk : exports_) {
    Bytes entry;
    Writer(entry).u32(static_cast<std::uint32_t>(disk.name.size())).bytes(as_bytes(disk.name));
    answer(Option::kList, OptionReply::kServer, entry);
  }
  return answer(Option::kList, OptionReply::kAck);
}

Handshake::Step Handshake::structured_reply(BytesView data) {
  if (!data.empty()) return answer(Option::kStructuredReply, OptionReply::kInvalid);
  agreement_.structured_replies = true;
  return answer(Option::kStructuredReply, OptionReply::kAck);
}

Handshake::Step Handshake::answer(Option option, OptionReply reply, BytesView data) {
  Bytes bytes;
  Writer(bytes)
      .u64(kOptionReplyMagic)
      .u32(std::to_underlying(option))
      .u32(std::to_underlying(reply))
      .u32(static_cast<std::uint32_t>(data.size()))
      .bytes(data);
  out_.append(bytes);
  return Step::kTookOne;
}

const Export* Handshake::find(std::string_view name) const {
  const auto found = std::ranges::find(exports_, name, &Export::name);
  return found == exports_.end() ? nullptr : &*found;
}

}  // namespace godwit::nbd

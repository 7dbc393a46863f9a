#include "nbd/connection.hh"

#include <algorithm>
#include <utility>

#include "base/check.hh"

namespace godwit::nbd {
namespace {

constexpr std::size_t kLongestMessage = std::max(
    kOptionHeader + kMaxOptionData, kRequestHeader + static_cast<std::size_t>(kMaxPayload.bytes));

static_assert(kOutboxBytes >= kMaxOptionReply);
static_assert(kMaxOptionReply >=
              kMaxExports * (kStructuredHeader + 4 + kMaxExportName) + kStructuredHeader);

std::vector<Export> checked(std::vector<Export> exports) {
  CHECK(exports.size() <= kMaxExports, "{} exports", exports.size());
  for (std::size_t i = 0; i < exports.size(); ++i) {
    check_valid(exports[i]);
    const auto others = std::span(exports).first(i);
    CHECK(std::ranges::find(others, exports[i].name, &Export::name) == others.end(),
          "two exports are named '{}'", exports[i].name);
  }
  return exports;
}

// magic, error, cookie
std::array<std::byte, kSimpleReply> simple_reply(const RequestHeader& header, ErrorCode error) {
  std::array<std::byte, kSimpleReply> bytes;
  to_big_endian(kSimpleReplyMagic, bytes.data());
  to_big_endian(std::to_underlying(error), bytes.data() + 4);
  to_big_endian(header.cookie, bytes.data() + 8);
  return bytes;
}

// magic, flags, type, cookie, length. The only chunk of its reply.
std::array<std::byte, kStructuredHeader> chunk(const RequestHeader& header, ChunkType type,
                                               std::size_t length) {
  std::array<std::byte, kStructuredHeader> bytes;
  to_big_endian(kStructuredReplyMagic, bytes.data());
  to_big_endian(kChunkDone, bytes.data() + 4);
  to_big_endian(std::to_underlying(type), bytes.data() + 6);
  to_big_endian(header.cookie, bytes.data() + 8);
  to_big_endian(static_cast<std::uint32_t>(length), bytes.data() + 16);
  return bytes;
}

}  // namespace

Connection::Connection(std::vector<Export> exports)
    : exports_(checked(std::move(exports))),
      in_(kLongestMessage),
      out_(kOutboxBytes),
      handshake_(exports_, out_) {}

MutableBytes Connection::room() {
  if (failed_ || phase_ == Phase::kEnded) return {};
  return in_.room();
}

void Connection::commit(std::size_t count) { in_.commit(count); }

std::optional<Request> Connection::next() {
  if (phase_ == Phase::kHandshake && !failed_) negotiate();
  while (phase_ == Phase::kTransmission && !failed_ && in_.bytes().size() >= kRequestHeader) {
    const auto header = decode_request(in_.bytes().first(kRequestHeader));
    if (!header) {
      give_up({"nbd: a request begins with a wrong magic number"});
      break;
    }
    const bool has_place = outstanding_count_ < kMaxOutstanding;
    const ErrorCode error = judge(*header, *chosen(), handshake_.agreement().structured_replies);
    if (error != ErrorCode::kNone) {
      if (!refuse(*header, error)) break;
    } else if (header->command == Command::kDisconnect) {
      phase_ = Phase::kEnded;
    } else if (!has_place || out_.free() - reserved_ < longest_reply(*header)) {
      break;
    } else {
      return accept(*header);
    }
  }
  return std::nullopt;
}

void Connection::negotiate() {
  while (out_.free() >= kMaxOptionReply) {
    const auto step = handshake_.step(in_);
    if (!step) return give_up(step.error());
    if (*step == Handshake::Step::kNeedsMore) return;
    if (*step == Handshake::Step::kTookOne) continue;
    phase_ = *step == Handshake::Step::kAborted ? Phase::kEnded : Phase::kTransmission;
    return;
  }
}

// Nothing: its payload has not come yet.
std::optional<Request> Connection::accept(const RequestHeader& header) {
  const std::size_t payload = header.command == Command::kWrite ? header.length : 0;
  if (in_.bytes().size() < kRequestHeader + payload) {
    in_.expect(kRequestHeader + payload);
    return std::nullopt;
  }
  const BytesView whole = in_.take(kRequestHeader + payload);
  Outstanding& free_place = place(RequestId{});
  free_place = {.id = {++last_id_}, .header = header};
  ++outstanding_count_;
  reserved_ += longest_reply(header);
  return Request{.id = free_place.id,
                 .command = header.command,
                 .flags = header.flags,
                 .offset = header.offset,
                 .length = header.length,
                 .payload = whole.subspan(kRequestHeader)};
}

// False: not now, as the Outbox is full, or never.
bool Connection::refuse(const RequestHeader& header, ErrorCode error) {
  const std::size_t payload = header.command == Command::kWrite ? header.length : 0;
  if (payload > kMaxSkipped) {
    give_up(
        {fmt::format("nbd: a WRITE of {} bytes, at most {} may be", payload, kMaxPayload.bytes)});
    return false;
  }
  if (out_.free() - reserved_ < kStructuredHeader + kErrorChunk) return false;
  in_.take(kRequestHeader);
  in_.skip(payload);
  write_error(header, error);
  return true;
}

void Connection::reply(RequestId id, ErrorCode error) {
  const RequestHeader header = settle(id);
  CHECK(header.command != Command::kRead || error != ErrorCode::kNone,
        "a READ of {} bytes is answered without them", header.length);
  write_error(header, error);
}

void Connection::reply_read(RequestId id, BytesView data) {
  const RequestHeader header = settle(id);
  CHECK(header.command == Command::kRead && data.size() == header.length,
        "{} bytes for a request of {}", data.size(), header.length);
  if (is_structured(header)) {
    out_.append(chunk(header, ChunkType::kOffsetData, kOffsetField + data.size()));
    std::array<std::byte, kOffsetField> offset;
    to_big_endian(header.offset, offset.data());
    out_.append(offset);
  } else {
    out_.append(simple_reply(header, ErrorCode::kNone));
  }
  out_.append(data);
}

void Connection::give_up(Error why) { failed_ = std::move(why); }

Connection::Outstanding& Connection::place(RequestId id) {
  const auto found = std::ranges::find(outstanding_, id, &Outstanding::id);
  CHECK(found != outstanding_.end(), "no request {} waits for a reply", id.number);
  return *found;
}

RequestHeader Connection::settle(RequestId id) {
  CHECK(id.number != 0);
  const RequestHeader header = std::exchange(place(id), {}).header;
  --outstanding_count_;
  reserved_ -= longest_reply(header);
  return header;
}

// A structured reply must be used to READ once agreed on, and nowhere else if there is no payload.
bool Connection::is_structured(const RequestHeader& header) const {
  return handshake_.agreement().structured_replies && header.command == Command::kRead;
}

std::size_t Connection::longest_reply(const RequestHeader& header) const {
  if (header.command != Command::kRead) return kSimpleReply;
  return kStructuredHeader + std::max(kOffsetField + header.length, kErrorChunk);
}

void Connection::write_error(const RequestHeader& header, ErrorCode error) {
  if (!is_structured(header)) return out_.append(simple_reply(header, error));
  out_.append(chunk(header, ChunkType::kError, kErrorChunk));
  std::array<std::byte, kErrorChunk> payload{};  // ends with the length of a text, which is none
  to_big_endian(std::to_underlying(error), payload.data());
  out_.append(payload);
}

}  // namespace godwit::nbd

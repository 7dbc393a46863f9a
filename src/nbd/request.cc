#include "nbd/request.hh"

namespace godwit::nbd {
namespace {

bool is_known(Command command) {
  switch (command) {
    case Command::kRead:
    case Command::kWrite:
    case Command::kDisconnect:
    case Command::kFlush:
    case Command::kTrim:
    case Command::kWriteZeroes:
      return true;
  }
  return false;
}

bool has_payload(Command command) {
  return command == Command::kRead || command == Command::kWrite;
}
bool changes_disk(Command command) {
  return command == Command::kWrite || command == Command::kTrim ||
         command == Command::kWriteZeroes;
}

std::uint16_t allowed_flags(Command command, const Export& disk, bool structured_replies) {
  unsigned flags = kFua;  // of all commands, though it says nothing of some
  if (command == Command::kRead && structured_replies) flags |= kDf;
  if (command == Command::kWriteZeroes) flags |= kNoHole;
  if (command == Command::kWriteZeroes && disk.fast_zero) flags |= kFastZero;
  return static_cast<std::uint16_t>(flags);
}

ErrorCode judge_range(const RequestHeader& request, const Export& disk) {
  const std::uint64_t size = disk.size.bytes;
  if (request.offset > size || request.length > size - request.offset) {
    const bool is_write = request.command == Command::kWrite ||  //
                          request.command == Command::kWriteZeroes;
    return is_write ? ErrorCode::kNoSpace : ErrorCode::kInvalid;
  }
  const std::uint64_t within_block = disk.minimum_block.bytes - 1;
  const bool aligned = ((request.offset | request.length) & within_block) == 0;
  // Nothing at all: the protocol leaves it open, and nobody needs it.
  return aligned && request.length > 0 ? ErrorCode::kNone : ErrorCode::kInvalid;
}

}  // namespace

std::optional<RequestHeader> decode_request(BytesView bytes) {
  Reader reader(bytes);
  if (reader.u32() != kRequestMagic) return std::nullopt;
  RequestHeader header;
  header.flags = reader.u16();
  header.command = Command{reader.u16()};
  header.cookie = reader.u64();
  header.offset = reader.u64();
  header.length = reader.u32();
  if (!reader.finished()) return std::nullopt;
  return header;
}

ErrorCode judge(const RequestHeader& request, const Export& disk, bool structured_replies) {
  const Command command = request.command;
  if (!is_known(command)) return ErrorCode::kInvalid;
  if (command == Command::kDisconnect) return ErrorCode::kNone;
  if ((request.flags & ~allowed_flags(command, disk, structured_replies)) != 0) {
    return ErrorCode::kInvalid;
  }
  if (command == Command::kFlush) {
    const bool reserved = request.offset == 0 && request.length == 0;
    return reserved ? ErrorCode::kNone : ErrorCode::kInvalid;
  }
  if (disk.read_only && changes_disk(command)) return ErrorCode::kNotPermitted;
  if (has_payload(command) && request.length > kMaxPayload.bytes) {
    // Only a structured reply to READ may say what is wrong.
    const bool may_tell = command == Command::kRead && structured_replies;
    return may_tell ? ErrorCode::kOverflow : ErrorCode::kInvalid;
  }
  return judge_range(request, disk);
}

}  // namespace godwit::nbd

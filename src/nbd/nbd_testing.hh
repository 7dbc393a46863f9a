#pragma once
// For tests: the bytes of a client, and what it makes of a server's. Written from the protocol's
// document, with none of the code under test but its numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "nbd/connection.hh"

namespace godwit::nbd::test {

inline constexpr std::uint64_t kDiskBytes = 64 << 20;
inline Export disk() { return {.name = "disk0", .size = {kDiskBytes}}; }

inline Bytes client_flags(std::uint32_t flags = 3) {
  Bytes bytes;
  Writer(bytes).u32(flags);
  return bytes;
}
inline Bytes option(std::uint32_t number, BytesView data = {}) {
  Bytes bytes;
  Writer(bytes).u64(0x49484156454f5054).u32(number);
  Writer(bytes).u32(static_cast<std::uint32_t>(data.size())).bytes(data);
  return bytes;
}
inline Bytes info_data(std::string_view name, const std::vector<std::uint16_t>& wanted = {3}) {
  Bytes data;
  Writer(data).u32(static_cast<std::uint32_t>(name.size())).bytes(as_bytes(name));
  Writer(data).u16(static_cast<std::uint16_t>(wanted.size()));
  for (const std::uint16_t each : wanted) Writer(data).u16(each);
  return data;
}
struct Sent {
  std::uint16_t command = 0;
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  std::uint16_t flags = 0;
  Bytes payload{};
};
inline Bytes encode(const Sent& sent) {
  Bytes bytes;
  Writer(bytes).u32(0x25609513).u16(sent.flags).u16(sent.command).u64(sent.cookie);
  Writer(bytes).u64(sent.offset).u32(sent.length).bytes(sent.payload);
  return bytes;
}

// As much as there is room for; the rest of `bytes` is left.
inline void feed_some(Connection& connection, BytesView& bytes) {
  const MutableBytes room = connection.room();
  const BytesView part = bytes.first(std::min(room.size(), bytes.size()));
  std::ranges::copy(part, room.begin());
  connection.commit(part.size());
  bytes = bytes.subspan(part.size());
}
// All; no request may come of it.
inline void feed(Connection& connection, BytesView bytes) {
  while (!bytes.empty() && !connection.failed()) {
    const std::size_t before = bytes.size();
    feed_some(connection, bytes);
    ASSERT_FALSE(connection.next());
    ASSERT_LT(bytes.size(), before) << "no room";
  }
}
inline Bytes drain(Connection& connection) {
  Bytes out;
  while (!connection.peek().empty()) {
    const BytesView part = connection.peek();
    append(out, part);
    connection.advance(part.size());
  }
  return out;
}
// To transmission, of a connection whose greeting was answered.
inline void choose(Connection& connection, std::string_view name = "disk0") {
  feed(connection, option(7, info_data(name)));
  drain(connection);
  ASSERT_NE(connection.chosen(), nullptr);
}
// The same of a new one.
inline void go(Connection& connection, std::string_view name = "disk0", bool structured = true) {
  feed(connection, client_flags());
  if (structured) feed(connection, option(8));
  choose(connection, name);
}

struct Reply {
  std::uint32_t error = 0;
  Bytes data{};
  bool operator==(const Reply&) const = default;
};

// The client's end: knows what it sent, and takes the server's bytes apart.
class ReplyParser {
 public:
  explicit ReplyParser(bool structured) : structured_(structured) {}

  void sent(const Sent& sent) { sent_[sent.cookie] = sent; }
  void feed(BytesView bytes) {
    append(held_, bytes);
    while (one()) {
    }
  }
  const std::map<std::uint64_t, Reply>& replies() const { return replies_; }
  bool whole() const { return held_.empty(); }

 private:
  bool one() {
    Reader reader(held_);
    const std::uint32_t magic = reader.u32();
    if (!reader.ok()) return false;
    const bool good = magic == 0x67446698 ? simple(reader) : chunk(reader, magic);
    if (!good) return false;
    held_.erase(held_.begin(), held_.end() - static_cast<std::ptrdiff_t>(reader.remaining()));
    return true;
  }
  bool simple(Reader& reader) {
    Reply reply{.error = reader.u32()};
    const std::uint64_t cookie = reader.u64();
    if (!reader.ok()) return false;
    const Sent& sent = sent_.at(cookie);
    if (sent.command == 0) {
      EXPECT_FALSE(structured_) << "a READ must be answered by chunks";
      if (reply.error == 0) reply.data = to_bytes(reader.bytes(sent.length));
    }
    return reader.ok() && take(cookie, std::move(reply));
  }
  bool chunk(Reader& reader, std::uint32_t magic) {
    EXPECT_EQ(magic, 0x668e33efu);
    const std::uint16_t flags = reader.u16(), type = reader.u16();
    const std::uint64_t cookie = reader.u64();
    const std::size_t length = reader.u32();
    Reader payload(reader.bytes(length));
    if (!reader.ok()) return false;
    EXPECT_TRUE(structured_);
    EXPECT_EQ(flags, 1) << "one chunk each, which is the last";
    const Sent& sent = sent_.at(cookie);
    Reply reply;
    if (type == 1) {
      EXPECT_EQ(payload.u64(), sent.offset);
      reply.data = to_bytes(payload.rest());
      EXPECT_EQ(reply.data.size(), sent.length);
    } else {
      EXPECT_EQ(type, 0x8001);
      reply.error = payload.u32();
      EXPECT_NE(reply.error, 0u);
      EXPECT_EQ(payload.text16(), "");
    }
    EXPECT_TRUE(payload.finished());
    return take(cookie, std::move(reply));
  }
  bool take(std::uint64_t cookie, Reply reply) {
    EXPECT_TRUE(replies_.emplace(cookie, std::move(reply)).second) << "answered twice";
    return true;
  }

  bool structured_;
  Bytes held_;
  std::map<std::uint64_t, Sent> sent_;
  std::map<std::uint64_t, Reply> replies_;
};

}  // namespace godwit::nbd::test

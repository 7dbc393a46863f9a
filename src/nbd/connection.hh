#pragma once
// The server side of one NBD connection, from its greeting to its end: docs/protocol/nbd.md.
//
//   socket -> room()/commit() -> Inbox -> Handshake, then next() -> owner
//   socket <- peek()/advance() <- Outbox <- reply(), reply_read() <-'
//
// Pure: no I/O, no clock; owned by one thread. After each commit() the owner calls next() until it
// gives nothing, also after a reply() and an advance(), which may be what it waited for; then it
// looks whether there is something to peek(), whether there is room() to read into, and whether the
// connection has failed() or is finished(). Replies come in any order; a FLUSH is answered when all
// that was answered before it came is on stable storage, which is the owner's to see to.
#include <array>
#include <optional>
#include <vector>

#include "nbd/handshake.hh"
#include "nbd/request.hh"

namespace godwit::nbd {

// Requests that are not answered. QEMU's client has at most 16 in flight (MAX_NBD_REQUESTS in
// block/nbd.c); others wait with their seventeenth.
inline constexpr std::size_t kMaxOutstanding = 16;
// Bytes for the socket: three READs at a time, the rest wait. A mirror does not read.
inline constexpr std::size_t kOutboxBytes = 4 << 20;

// 1, 2, 3, ... as requests come. The client's cookie stays inside: it should be unique among what
// is not answered, and need not be.
struct RequestId {
  std::uint64_t number = 0;
  auto operator<=>(const RequestId&) const = default;
};

// To be carried out: within the disk, aligned, permitted, with flags that go with the command.
struct Request {
  RequestId id{};
  Command command{};  // all but kDisconnect
  std::uint16_t flags = 0;
  std::uint64_t offset = 0;  // bytes
  std::uint32_t length = 0;  // bytes; at most kMaxPayload where they go over the wire
  BytesView payload{};       // of WRITE; valid until next() or room()
};

class Connection final {
 public:
  // At most kMaxExports, each valid, with names that differ; CHECKed. The client chooses one.
  explicit Connection(std::vector<Export> exports);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Room to read from the socket into, empty when next() has to be called, or a reply, first;
  // commit(): that many bytes of it are filled.
  MutableBytes room();
  void commit(std::size_t count);

  // The next whole request. Nothing: more bytes have to come, kMaxOutstanding are not answered, the
  // Outbox might not hold the reply, or it is the end. What must be refused is answered in here.
  std::optional<Request> next();

  // Any request but a READ that succeeded. CHECKs that it was not answered.
  void reply(RequestId id, ErrorCode error = ErrorCode::kNone);
  // A READ: all of its bytes, CHECKed.
  void reply_read(RequestId id, BytesView data);

  // The next bytes for the socket, valid until the next call of another function; then how many it
  // took.
  BytesView peek() const { return out_.peek(); }
  void advance(std::size_t count) { out_.advance(count); }

  // The one that the client chose; nothing during the handshake.
  const Export* chosen() const { return handshake_.agreement().disk; }
  std::size_t outstanding() const { return outstanding_count_; }
  // The client broke the protocol, in a way that leaves nothing to say: close the socket. Replies
  // to what is outstanding are still taken, and of no use.
  const std::optional<Error>& failed() const { return failed_; }
  // It said goodbye (DISC, ABORT), and all is answered and sent: close the socket. A client that
  // just goes is seen by the owner of the socket only.
  bool finished() const {
    return phase_ == Phase::kEnded && outstanding_count_ == 0 && out_.empty();
  }

 private:
  enum class Phase { kHandshake, kTransmission, kEnded };
  struct Outstanding {
    RequestId id{};  // 0: a free place
    RequestHeader header{};
  };

  void negotiate();
  std::optional<Request> accept(const RequestHeader& header);
  bool refuse(const RequestHeader& header, ErrorCode error);
  void give_up(Error why);
  Outstanding& place(RequestId id);
  RequestHeader settle(RequestId id);
  bool is_structured(const RequestHeader& header) const;
  std::size_t longest_reply(const RequestHeader& header) const;
  void write_error(const RequestHeader& header, ErrorCode error);

  std::vector<Export> exports_;
  Inbox in_;
  Outbox out_;
  Handshake handshake_;
  Phase phase_ = Phase::kHandshake;
  std::optional<Error> failed_;
  std::uint64_t last_id_ = 0;
  std::array<Outstanding, kMaxOutstanding> outstanding_;
  std::size_t outstanding_count_ = 0;
  std::size_t reserved_ = 0;  // of the Outbox, for the replies to them
};

}  // namespace godwit::nbd

#pragma once
// From the greeting to the export that the client chose: fixed newstyle. Owned by a Connection.
//
//   greeting -> client flags -> option -> option -> ... -> GO or EXPORT_NAME: transmission
//                                                     `--> ABORT: the end
#include <span>

#include "base/result.hh"
#include "nbd/export.hh"
#include "nbd/inbox.hh"
#include "nbd/outbox.hh"
#include "nbd/protocol.hh"

namespace godwit::nbd {

// Data of one option: a name of 4,096 bytes, the protocol's longest, and many information requests.
inline constexpr std::size_t kMaxOptionData = 8 << 10;  // bytes
// What may follow a header and be thrown away, be it an option or a WRITE; with more the connection
// ends. 2^25 bytes are what the protocol does not want to be taken for an attack.
inline constexpr std::size_t kMaxSkipped = 32 << 20;  // bytes
// Of the answer to one option: LIST of kMaxExports with names of kMaxExportName.
inline constexpr std::size_t kMaxOptionReply = 16 << 10;  // bytes

// What the two have agreed on.
struct Agreement {
  const Export* disk = nullptr;
  bool structured_replies = false;
};

class Handshake final {
 public:
  enum class Step { kNeedsMore, kTookOne, kTransmission, kAborted };

  // `exports` stay where they are.
  Handshake(std::span<const Export> exports, Outbox& out);

  // One message off the front; the Outbox has kMaxOptionReply free. An error ends the connection: a
  // wrong magic number, unknown client flags, an EXPORT_NAME that is unknown (it has no other
  // answer), more than kMaxSkipped bytes of data.
  Result<Step> step(Inbox& in);
  const Agreement& agreement() const { return agreement_; }

 private:
  Result<Step> client_flags(Inbox& in);
  Result<Step> export_name(BytesView name);
  Step info(Option option, BytesView data);
  Step list(BytesView data);
  Step structured_reply(BytesView data);
  Step answer(Option option, OptionReply reply, BytesView data = {});
  const Export* find(std::string_view name) const;

  std::span<const Export> exports_;
  Outbox& out_;
  bool has_flags_ = false;  // the client's
  bool no_zeroes_ = false;
  Agreement agreement_;
};

}  // namespace godwit::nbd

#pragma once
// Invitations to the fleet. A token is 64 characters: base64url (RFC 4648, 5) of a 16-byte secret
// and the SHA-256 of the CA's certificate. The secret lets one host in, once; the hash lets that
// host know whom it joins. The inviting agent keeps a hash of the secret only.
#include <array>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hh"
#include "crypto/certificate.hh"

namespace godwit::session {

constexpr std::chrono::hours kInviteLife{1};
constexpr std::size_t kMaxInvites = 1024;  // open at a time

struct InviteToken {
  std::array<std::byte, 16> secret{};
  crypto::Sha256 ca_fingerprint{};

  std::string text() const;
  static Result<InviteToken> parse(std::string_view text);
};

// "TOKEN@HOST", "TOKEN@HOST:PORT", "TOKEN@[fd00::1]:4747".
struct JoinTarget {
  InviteToken token;
  std::string host;
  std::uint16_t port = 0;
  static Result<JoinTarget> parse(std::string_view text);
};

// The open invitations of one agent. Time is UTC, so that they survive a restart.
class Invites final {
 public:
  struct Record {
    crypto::Sha256 secret_hash;
    crypto::WallTime expires;
  };

  explicit Invites(crypto::Sha256 ca_fingerprint, std::vector<Record> records = {});

  // Fails when kMaxInvites are open.
  Result<InviteToken> make(crypto::WallTime now, std::chrono::seconds life = kInviteLife);
  // Whether the secret would let a host in; "unknown", "used or expired" are not told apart.
  bool is_open(BytesView secret, crypto::WallTime now) const;
  // Uses the invitation up.
  void use(BytesView secret);
  // To be stored whenever it changed.
  const std::vector<Record>& records() const { return records_; }

 private:
  crypto::Sha256 ca_fingerprint_;
  std::vector<Record> records_;
};

}  // namespace godwit::session

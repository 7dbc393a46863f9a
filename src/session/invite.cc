#include "session/invite.hh"

#include <algorithm>

#include "os/endpoint.hh"
#include "os/random.hh"
#include "session/protocols.hh"

namespace godwit::session {
namespace {

constexpr std::string_view kAlphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr std::size_t kTokenBytes = 16 + 32;
constexpr std::size_t kTokenText = kTokenBytes / 3 * 4;  // no padding: divisible by three

}  // namespace

std::string InviteToken::text() const {
  Bytes raw = to_bytes(secret);
  append(raw, ca_fingerprint);
  std::string out;
  for (std::size_t i = 0; i < raw.size(); i += 3) {
    const unsigned three = std::to_integer<unsigned>(raw[i]) << 16 |
                           std::to_integer<unsigned>(raw[i + 1]) << 8 |
                           std::to_integer<unsigned>(raw[i + 2]);
    for (const int shift : {18, 12, 6, 0}) out += kAlphabet[three >> shift & 63];
  }
  return out;
}

Result<InviteToken> InviteToken::parse(std::string_view text) {
  if (text.size() != kTokenText) {
    return fail("not an invitation: {} characters, expected {}; copy the whole token", text.size(),
                kTokenText);
  }
  Bytes raw;
  for (std::size_t i = 0; i < text.size(); i += 4) {
    unsigned three = 0;
    for (const char c : text.substr(i, 4)) {
      const std::size_t digit = kAlphabet.find(c);
      if (digit == std::string_view::npos) return fail("not an invitation: bad character");
      three = three << 6 | static_cast<unsigned>(digit);
    }
    for (const int shift : {16, 8, 0}) raw.push_back(static_cast<std::byte>(three >> shift & 0xff));
  }
  InviteToken token;
  std::copy_n(raw.begin(), token.secret.size(), token.secret.begin());
  std::copy(raw.begin() + token.secret.size(), raw.end(), token.ca_fingerprint.begin());
  return token;
}

Result<JoinTarget> JoinTarget::parse(std::string_view text) {
  const std::size_t at = text.find('@');
  if (at == std::string_view::npos) {
    // Not quoted: it may be a token, and errors end in logs.
    return fail("not an invitation: expected TOKEN@HOST or TOKEN@HOST:PORT");
  }
  auto token = InviteToken::parse(text.substr(0, at));
  if (!token) return std::unexpected(token.error());
  auto address = os::parse_host_port(text.substr(at + 1), kDefaultPort);
  if (!address) return std::unexpected(address.error());
  return JoinTarget{*token, std::move(address->host), address->port};
}

Invites::Invites(crypto::Sha256 ca_fingerprint, std::vector<Record> records)
    : ca_fingerprint_(ca_fingerprint), records_(std::move(records)) {}

Result<InviteToken> Invites::make(crypto::WallTime now, std::chrono::seconds life) {
  std::erase_if(records_, [&](const Record& record) { return record.expires <= now; });
  if (records_.size() >= kMaxInvites) return fail("{} invitations are open already", kMaxInvites);
  InviteToken token{.secret = {}, .ca_fingerprint = ca_fingerprint_};
  os::fill_random(token.secret);
  // base64url has '-': a token that began with it would be taken for an option on a command line.
  token.secret[0] &= std::byte{0x7f};
  records_.push_back({crypto::sha256(token.secret), now + life});
  return token;
}

bool Invites::is_open(BytesView secret, crypto::WallTime now) const {
  const crypto::Sha256 hash = crypto::sha256(secret);
  return std::ranges::any_of(records_, [&](const Record& record) {
    return crypto::equal_in_constant_time(record.secret_hash, hash) && record.expires > now;
  });
}

void Invites::use(BytesView secret) {
  const crypto::Sha256 hash = crypto::sha256(secret);
  std::erase_if(records_, [&](const Record& record) { return record.secret_hash == hash; });
}

}  // namespace godwit::session

#include <algorithm>

#include "base/check.hh"
#include "crypto/tls_context.hh"

namespace godwit::crypto {
namespace {

constexpr std::size_t kRecord = 16 * 1024;  // RFC 8446, 5.1: the largest plaintext of a record
// New sending keys long before the 2^24.5 full records that AES-GCM is good for (RFC 8446, 5.5).
constexpr std::uint64_t kBytesPerKey = std::uint64_t{64} << 30;

// What the peer's alert says about us.
std::string alert_text(int reason) {
  switch (reason) {
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
      return "the peer refused our certificate: expired or not yet valid";
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
      return "the peer refused our certificate: it is of another fleet (foreign CA)";
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
      return "the peer refused our certificate";
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return "the peer asks for a certificate and we have none";
    case SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL:
      return "the peer does not speak this protocol; is it a Godwit of another version?";
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
    case SSL_R_UNSUPPORTED_PROTOCOL:
      return "the peer does not speak TLS 1.3";
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "the peer showed no certificate";
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
      return "the peer does not speak TLS";
    default:
      return {};
  }
}

std::string failure_text(const std::string& refusal) {
  const int reason = ERR_GET_REASON(ERR_peek_last_error());
  const std::string known = refusal.empty() ? alert_text(reason) : refusal;
  if (!known.empty()) {
    ERR_clear_error();
    return known;
  }
  return fmt::format("TLS: {}", openssl_reason());
}

}  // namespace

TlsEngine::TlsEngine(std::unique_ptr<Connection> connection) : connection_(std::move(connection)) {}
TlsEngine::~TlsEngine() = default;
TlsEngine::TlsEngine(TlsEngine&&) noexcept = default;
TlsEngine& TlsEngine::operator=(TlsEngine&&) noexcept = default;

namespace {

template <class Connection>
void open_connection(Connection& connection) {
  connection.ssl = SSL_new(connection.context->ssl);
  CHECK(connection.ssl != nullptr, "{}", openssl_reason());
  connection.incoming = BIO_new(BIO_s_mem());
  connection.outgoing = BIO_new(BIO_s_mem());
  CHECK(connection.incoming != nullptr && connection.outgoing != nullptr);
  BIO_set_mem_eof_return(connection.incoming, -1);  // empty means "not yet", not the end
  SSL_set_bio(connection.ssl, connection.incoming, connection.outgoing);
  SSL_set_app_data(connection.ssl, &connection);
}

template <class Connection>
void collect_ciphertext(Connection& connection) {
  char* at = nullptr;
  const auto size = static_cast<std::size_t>(BIO_get_mem_data(connection.outgoing, &at));
  if (size == 0) return;
  append(connection.ciphertext, std::as_bytes(std::span(at, size)));
  BIO_reset(connection.outgoing);
}

template <class Connection>
void advance_handshake(Connection& connection) {
  ERR_clear_error();
  const int result = SSL_do_handshake(connection.ssl);
  collect_ciphertext(connection);
  if (result != 1) {
    const int kind = SSL_get_error(connection.ssl, result);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) return;
    connection.error = failure_text(connection.refusal);
    connection.state = TlsEngine::State::failed;
    return;
  }
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(connection.ssl, &name, &size);
  connection.alpn = as_text(std::as_bytes(std::span(name, size)));
  connection.state = TlsEngine::State::open;
  if (connection.alpn.empty()) {
    connection.error = "the peer names no protocol (ALPN)";
    connection.state = TlsEngine::State::failed;
  }
}

}  // namespace

TlsEngine TlsEngine::client(const TlsContext& context, const std::string& alpn,
                            std::string expected_peer) {
  CHECK(!alpn.empty() && alpn.size() < 256, "ALPN '{}'", alpn);
  auto connection = std::make_unique<Connection>();
  connection->context = context.parts_;
  connection->is_client = true;
  connection->expected_peer = std::move(expected_peer);
  connection->peer_fleet = context.parts_->peers;
  open_connection(*connection);
  std::string offer(1, static_cast<char>(alpn.size()));
  offer += alpn;
  CHECK(SSL_set_alpn_protos(connection->ssl, reinterpret_cast<const unsigned char*>(offer.data()),
                            static_cast<unsigned int>(offer.size())) == 0);
  SSL_set_connect_state(connection->ssl);
  advance_handshake(*connection);
  return TlsEngine(std::move(connection));
}

TlsEngine TlsEngine::server(const TlsContext& context) {
  auto connection = std::make_unique<Connection>();
  connection->context = context.parts_;
  open_connection(*connection);
  SSL_set_accept_state(connection->ssl);
  return TlsEngine(std::move(connection));
}

TlsEngine::State TlsEngine::state() const { return connection_->state; }
bool TlsEngine::is_client() const { return connection_->is_client; }
const std::string& TlsEngine::error() const { return connection_->error; }
const std::string& TlsEngine::peer_name() const { return connection_->peer_name; }
const std::optional<Certificate>& TlsEngine::peer_user() const { return connection_->peer_user; }
const std::string& TlsEngine::alpn() const { return connection_->alpn; }

const Certificate& TlsEngine::peer_ca() const {
  CHECK(connection_->peer_ca.has_value(), "no certified peer");
  return *connection_->peer_ca;
}

void TlsEngine::feed(BytesView bytes) {
  if (connection_->state == State::failed || bytes.empty()) return;
  const int took = BIO_write(connection_->incoming, bytes.data(), static_cast<int>(bytes.size()));
  CHECK(took == static_cast<int>(bytes.size()), "out of memory");
  if (connection_->state == State::handshaking) advance_handshake(*connection_);
}

BytesView TlsEngine::ciphertext() const {
  return BytesView(connection_->ciphertext).subspan(connection_->taken);
}

void TlsEngine::consume_ciphertext(std::size_t count) {
  Connection& c = *connection_;
  c.taken += count;
  CHECK(c.taken <= c.ciphertext.size(), "{} of {}", c.taken, c.ciphertext.size());
  if (c.taken == c.ciphertext.size()) {
    c.ciphertext.clear();
    c.taken = 0;
  } else if (c.taken >= kMaxPendingCiphertext) {  // moves at most as much as was taken since
    c.ciphertext.erase(c.ciphertext.begin(),
                       c.ciphertext.begin() + static_cast<std::ptrdiff_t>(c.taken));
    c.taken = 0;
  }
}

std::size_t TlsEngine::write(BytesView plaintext) {
  Connection& c = *connection_;
  if (c.state != State::open && c.state != State::ended) return 0;
  std::size_t total = 0;
  while (total < plaintext.size() && ciphertext().size() < kMaxPendingCiphertext) {
    const BytesView record = plaintext.subspan(total, std::min(kRecord, plaintext.size() - total));
    if (c.written_with_key >= kBytesPerKey) {
      CHECK(SSL_key_update(c.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1, "{}", openssl_reason());
      c.written_with_key = 0;
    }
    ERR_clear_error();
    std::size_t wrote = 0;
    if (SSL_write_ex(c.ssl, record.data(), record.size(), &wrote) != 1) {
      if ((SSL_get_shutdown(c.ssl) & SSL_SENT_SHUTDOWN) != 0) break;
      c.error = failure_text({});
      c.state = State::failed;
      break;
    }
    collect_ciphertext(c);
    total += wrote;
    c.written_with_key += wrote;
  }
  return total;
}

std::size_t TlsEngine::read(MutableBytes into) {
  Connection& c = *connection_;
  if (c.state != State::open) return 0;
  std::size_t total = 0;
  while (total < into.size()) {
    ERR_clear_error();
    std::size_t got = 0;
    const int ok = SSL_read_ex(c.ssl, into.data() + total, into.size() - total, &got);
    total += got;
    if (ok == 1) continue;
    switch (SSL_get_error(c.ssl, ok)) {
      case SSL_ERROR_WANT_READ:
      case SSL_ERROR_WANT_WRITE:
        break;
      case SSL_ERROR_ZERO_RETURN:
        c.state = State::ended;
        break;
      default:
        c.error = failure_text({});
        c.state = State::failed;
    }
    break;
  }
  collect_ciphertext(c);  // an alert, or the answer to a key update
  return total;
}

void TlsEngine::finish() {
  if (connection_->state != State::open && connection_->state != State::ended) return;
  ERR_clear_error();
  SSL_shutdown(connection_->ssl);
  collect_ciphertext(*connection_);
  ERR_clear_error();
}

std::array<std::byte, 32> TlsEngine::export_secret(std::string_view label,
                                                   BytesView context) const {
  CHECK(connection_->state == State::open || connection_->state == State::ended);
  std::array<std::byte, 32> secret;
  const int ok = SSL_export_keying_material(
      connection_->ssl, reinterpret_cast<unsigned char*>(secret.data()), secret.size(),
      label.data(), label.size(), reinterpret_cast<const unsigned char*>(context.data()),
      context.size(), 1);
  CHECK(ok == 1, "{}", openssl_reason());
  return secret;
}

}  // namespace godwit::crypto

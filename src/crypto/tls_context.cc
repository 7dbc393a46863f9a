// Trust: which certificates are accepted, and in which words they are refused.
#include "crypto/tls_context.hh"

#include <algorithm>

#include "base/check.hh"
#include "base/host_name.hh"

namespace godwit::crypto {
namespace {

std::string refusal_text(int error, X509* certificate, X509* leaf) {
  if (certificate == nullptr) return "the peer's certificate cannot be checked";
  const Certificate shown = Certificate::from_native(certificate);
  const std::string name = shown.common_name();
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return fmt::format("certificate of {} expired on {}", name, to_text(shown.not_after()));
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return fmt::format("certificate of {} is not valid before {}; check the clocks", name,
                         to_text(shown.not_before()));
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_AKID_SKID_MISMATCH:
    case X509_V_ERR_INVALID_CA:
      return fmt::format("certificate of {} is of another fleet (foreign CA)",
                         Certificate::from_native(leaf).common_name());
    default:
      return fmt::format("certificate of {} refused: {}", name,
                         X509_verify_cert_error_string(error));
  }
}

}  // namespace

// Functions that OpenSSL calls back; a struct so that it can be a friend.
struct TlsCallbacks {
  static TlsEngine::Connection& connection(SSL* ssl) {
    return *static_cast<TlsEngine::Connection*>(SSL_get_app_data(ssl));
  }

  static SSL* ssl_of(X509_STORE_CTX* store) {
    return static_cast<SSL*>(
        X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  }

  // Called for each certificate of the chain after OpenSSL's own verdict, and for each fault.
  static int on_verify(int ok, X509_STORE_CTX* store) {
    TlsEngine::Connection& peer = connection(ssl_of(store));
    X509* certificate = X509_STORE_CTX_get_current_cert(store);
    if (ok != 1) {
      peer.refusal = refusal_text(X509_STORE_CTX_get_error(store), certificate,
                                  X509_STORE_CTX_get0_cert(store));
      return 0;
    }
    if (X509_STORE_CTX_get_error_depth(store) != 0) {
      peer.peer_ca = Certificate::from_native(certificate);
      return 1;
    }
    return accept_leaf(peer, Certificate::from_native(certificate), store);
  }

  static int accept_leaf(TlsEngine::Connection& peer, const Certificate& certificate,
                         X509_STORE_CTX* store) {
    const auto name = certificate.host_name();
    if (peer.clients == Clients::users) {
      if (certificate.user()) {
        peer.peer_user = certificate;
        return 1;
      }
      peer.refusal = fmt::format("certificate of {} is not a user's (godwit user add)",
                                 certificate.common_name());
    } else if (!name) {
      peer.refusal = name.error().text;
    } else {
      peer.peer_name = peer.peer_fleet.empty() ? *name : host_of_fleet(*name, peer.peer_fleet);
      if (peer.expected_peer.empty() || peer.peer_name == peer.expected_peer) return 1;
      peer.refusal = fmt::format("the host that answered is {}, not {}; check the address",
                                 peer.peer_name, peer.expected_peer);
    }
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
  }

  // The peer's certificate against this CA, and no other.
  static int verify_against(X509* ca, X509_STORE_CTX* store, const char* purpose) {
    const X509StorePtr trusted(X509_STORE_new());
    CHECK(trusted != nullptr && X509_STORE_add_cert(trusted.get(), ca) == 1);
    const X509StoreContextPtr check(X509_STORE_CTX_new());
    CHECK(X509_STORE_CTX_init(check.get(), trusted.get(), X509_STORE_CTX_get0_cert(store),
                              nullptr) == 1);
    CHECK(X509_STORE_CTX_set_default(check.get(), purpose) == 1);
    CHECK(X509_STORE_CTX_set_ex_data(check.get(), SSL_get_ex_data_X509_STORE_CTX_idx(),
                                     ssl_of(store)) == 1);
    X509_STORE_CTX_set_verify_cb(check.get(), on_verify);
    const int ok = X509_verify_cert(check.get());
    X509_STORE_CTX_set_error(store, X509_STORE_CTX_get_error(check.get()));
    return ok == 1 ? 1 : 0;
  }

  // A server: whose hosts may speak this protocol was decided with it. Of the trusted fleets it is
  // the one whose key made the signature; names of issuers and keys are whatever a stranger likes.
  static int on_verify_client(X509_STORE_CTX* store, void* parts) {
    TlsEngine::Connection& peer = connection(ssl_of(store));
    if (peer.clients != Clients::foreign) return X509_verify_cert(store);
    X509* certificate = X509_STORE_CTX_get0_cert(store);
    for (const TrustedFleet& fleet : static_cast<TlsContext::Parts*>(parts)->trusted) {
      const bool signed_it = X509_verify(certificate, X509_get0_pubkey(fleet.ca.native())) == 1;
      ERR_clear_error();
      if (!signed_it) continue;
      peer.peer_fleet = fleet.name;
      return verify_against(fleet.ca.native(), store, "ssl_client");
    }
    peer.refusal = fmt::format("certificate of {} is of a fleet that this host does not trust",
                               Certificate::from_native(certificate).common_name());
    X509_STORE_CTX_set_error(store, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
    return 0;
  }

  // Picks the first of our protocols that the client offers. A client of an uncertified protocol
  // is not asked for a certificate: RFC 8446 sends CertificateRequest after this choice.
  static int on_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_size,
                     const unsigned char* offered, unsigned int offered_size, void* parts) {
    for (const auto& protocol : static_cast<TlsContext::Parts*>(parts)->protocols) {
      for (unsigned int at = 0; at < offered_size; at += offered[at] + 1U) {
        const unsigned int size = std::min<unsigned int>(offered[at], offered_size - at - 1U);
        const auto* name = offered + at + 1;
        if (!std::equal(name, name + size, protocol.alpn.begin(), protocol.alpn.end())) continue;
        if (protocol.clients == Clients::anyone) SSL_set_verify(ssl, SSL_VERIFY_NONE, nullptr);
        connection(ssl).clients = protocol.clients;
        *out = name;
        *out_size = static_cast<unsigned char>(size);
        return SSL_TLSEXT_ERR_OK;
      }
    }
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }

  // A joining host: the CA is whichever certificate the server sent that has the invited hash.
  static int on_verify_chain(X509_STORE_CTX* store, void* parts) {
    const Sha256& wanted = *static_cast<TlsContext::Parts*>(parts)->ca_fingerprint;
    STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store);
    for (int i = 0; i < sk_X509_num(sent); ++i) {
      X509* candidate = sk_X509_value(sent, i);
      if (Certificate::from_native(candidate).fingerprint() != wanted) continue;
      return verify_against(candidate, store, "ssl_server");
    }
    connection(ssl_of(store)).refusal =
        "the host that answered is not of the fleet that made this invitation (another CA)";
    X509_STORE_CTX_set_error(store, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN);
    return 0;
  }
};

namespace {

SSL_CTX* new_context() {
  SSL_CTX* ssl = SSL_CTX_new(TLS_method());
  CHECK(ssl != nullptr, "{}", openssl_reason());
  CHECK(SSL_CTX_set_min_proto_version(ssl, TLS1_3_VERSION) == 1);
  CHECK(SSL_CTX_set_max_proto_version(ssl, TLS1_3_VERSION) == 1);
  CHECK(SSL_CTX_set_num_tickets(ssl, 0) == 1);
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
  // A fleet certificate and its CA take about 1 KiB; OpenSSL would allow 100 KiB.
  SSL_CTX_set_max_cert_list(ssl, 8 * 1024);
  return ssl;
}

// A host that shows its certificate and asks for one that `ca` signed.
SSL_CTX* host_context(const Identity& identity, const Certificate& ca) {
  SSL_CTX* ssl = new_context();
  CHECK(SSL_CTX_use_certificate(ssl, identity.certificate().native()) == 1, "{}", openssl_reason());
  CHECK(SSL_CTX_use_PrivateKey(ssl, identity.key().native()) == 1, "{}", openssl_reason());
  // The CA is sent too: a joining host must see it to compare its hash.
  CHECK(SSL_CTX_add1_chain_cert(ssl, identity.ca().native()) == 1, "{}", openssl_reason());
  CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), ca.native()) == 1);
  SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                     TlsCallbacks::on_verify);
  return ssl;
}

}  // namespace

TlsContext::TlsContext(std::shared_ptr<Parts> parts) : parts_(std::move(parts)) {}

TlsContext::TlsContext(const Identity& identity, std::vector<ServerProtocol> protocols,
                       std::vector<TrustedFleet> trusted)
    : parts_(std::make_shared<Parts>()) {
  parts_->ssl = host_context(identity, identity.ca());
  parts_->protocols = std::move(protocols);
  parts_->trusted = std::move(trusted);
  SSL_CTX_set_alpn_select_cb(parts_->ssl, TlsCallbacks::on_alpn, parts_.get());
  SSL_CTX_set_cert_verify_callback(parts_->ssl, TlsCallbacks::on_verify_client, parts_.get());
}

TlsContext::TlsContext(const Identity& identity, const TrustedFleet& peers)
    : parts_(std::make_shared<Parts>()) {
  parts_->ssl = host_context(identity, peers.ca);
  parts_->peers = peers.name;
}

TlsContext::TlsContext(const UserIdentity& user) : parts_(std::make_shared<Parts>()) {
  parts_->ssl = new_context();
  SSL_CTX* ssl = parts_->ssl;
  CHECK(SSL_CTX_use_certificate(ssl, user.certificate().native()) == 1, "{}", openssl_reason());
  CHECK(SSL_CTX_use_PrivateKey(ssl, user.key().native()) == 1, "{}", openssl_reason());
  CHECK(X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), user.ca().native()) == 1);
  SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER, TlsCallbacks::on_verify);
}

TlsContext TlsContext::joining(const Sha256& ca_fingerprint) {
  auto parts = std::make_shared<Parts>();
  parts->ssl = new_context();
  parts->ca_fingerprint = ca_fingerprint;
  SSL_CTX_set_verify(parts->ssl, SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_cert_verify_callback(parts->ssl, TlsCallbacks::on_verify_chain, parts.get());
  return TlsContext(std::move(parts));
}

TlsContext::~TlsContext() = default;
TlsContext::TlsContext(TlsContext&&) noexcept = default;
TlsContext& TlsContext::operator=(TlsContext&&) noexcept = default;

}  // namespace godwit::crypto

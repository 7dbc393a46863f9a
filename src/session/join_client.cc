#include <nlohmann/json.hpp>

#include "base/id.hh"
#include "os/socket.hh"
#include "session/join.hh"
#include "session/join_messages.hh"
#include "session/json_body.hh"
#include "session/protocols.hh"

namespace godwit::session {

JoinClient::JoinClient(os::Loop& loop, Request request, Done done)
    : loop_(loop),
      request_(std::move(request)),
      done_(std::move(done)),
      key_(crypto::PrivateKey::make()),
      network_{loop, crypto::TlsContext::joining(request_.token.ca_fingerprint),
               [&loop](const os::Endpoint& to) { return os::tcp_connect(loop, to); }} {
  deadline_ = loop_.after(kJoinTimeout, [this] {
    std::string tried;
    for (const os::Endpoint& to : request_.at) tried += (tried.empty() ? "" : ", ") + to.text();
    finish(fail(
        "cannot join: no answer from {} within {}; is it the inviting host's address, and may its "
        "TCP port be reached from here?",
        tried, to_text(kJoinTimeout)));
  });
  if (!is_valid_name(request_.host) || !is_valid_name(request_.site)) {
    deadline_ = loop_.after(Nanoseconds(0), [this] {
      finish(fail("cannot join: '{}' or '{}' is not a valid name", request_.host, request_.site));
    });
    return;
  }
  dial_ = std::make_unique<Dial>(network_,
                                 Dial::Plan{.peer = "",  // any host of the invited fleet
                                            .alpn = kJoinAlpn,
                                            .addresses = request_.at,
                                            .relays = {},
                                            .call = {}},
                                 [this](auto reached) { on_reached(std::move(reached)); });
}

JoinClient::~JoinClient() = default;

void JoinClient::on_reached(Result<Dial::Reached> reached) {
  const auto over = std::move(dial_);
  if (!reached) return finish(fail("cannot join: {}", reached.error().text));
  stream_ = std::move(reached->stream);
  const std::string body =
      json_text({{"secret", to_hex(request_.token.secret)},
                 {"csr", crypto::CertificateRequest::make(key_, request_.host).pem()},
                 {"host", request_.host},
                 {"site", request_.site},
                 {"port", request_.port},
                 {"addresses", request_.addresses}});
  Bytes out;
  encode({.kind = FrameKind::request, .id = 1, .method = kJoinMethod, .body = as_bytes(body)}, out);
  if (stream_->write(out) < out.size()) return finish(fail("cannot join: the connection failed"));
  stream_->start({.readable = [this] { on_readable(); },
                  .writable = {},
                  .closed =
                      [this](const std::string& reason) {
                        finish(fail("cannot join: {}",
                                    reason.empty() ? "the connection ended early" : reason));
                      }});
}

void JoinClient::on_readable() {
  const auto frame = reader_.next(*stream_);
  if (!frame) return finish(fail("cannot join: {}", frame.error().text));
  if (*frame) finish(take_answer(**frame));
}

Result<Joined> JoinClient::take_answer(const Frame& frame) const {
  const std::string from = stream_->tls().peer_name();
  if (frame.kind == FrameKind::error) {
    return fail("{} refused: {}", from, printable(as_text(frame.body)));
  }
  const auto body = parse_json_body(frame.body);
  if (!body || frame.kind != FrameKind::reply) return fail("{} gave a malformed answer", from);
  auto certificate = crypto::Certificate::from_pem(text_member(*body, "certificate"));
  if (!certificate) return fail("the answer of {}: {}", from, certificate.error().text);
  // The CA that the handshake proved, not the one that the answer names.
  auto identity = crypto::Identity::make(key_, std::move(*certificate), stream_->tls().peer_ca());
  if (!identity) return fail("the answer of {}: {}", from, identity.error().text);
  if (identity->host_name() != request_.host) {
    return fail("{} certified us as {}, not {}", from, identity->host_name(), request_.host);
  }
  Joined joined{std::move(*identity), {}};
  const auto hosts = body->find("hosts");
  if (hosts == body->end() || !hosts->is_array() || hosts->size() > kMaxKnownHosts) {
    return fail("the answer of {} has no list of hosts", from);
  }
  for (const auto& each : *hosts) {
    auto host = known_host_from_json(each);
    if (!host) return fail("the answer of {}: {}", from, host.error().text);
    joined.hosts.push_back(std::move(*host));
  }
  return joined;
}

void JoinClient::finish(Result<Joined> result) {
  if (!done_) return;
  deadline_.reset();
  auto done = std::move(done_);
  done(std::move(result));
}

}  // namespace godwit::session

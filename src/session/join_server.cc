#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/id.hh"
#include "session/join.hh"
#include "session/join_messages.hh"
#include "session/json_body.hh"

namespace godwit::session {
namespace {

constexpr Nanoseconds kVisit = seconds(10);

// The address that the joining host is seen from, with the port it listens on.
void add_seen_address(KnownHost& host, const std::string& peer_address, std::uint64_t port) {
  auto seen = os::Endpoint::parse(peer_address);
  if (!seen || port == 0 || port > 65535) return;
  seen->port = static_cast<std::uint16_t>(port);
  const std::string text = seen->text();
  if (std::ranges::find(host.addresses, text) == host.addresses.end()) {
    host.addresses.insert(host.addresses.begin(), text);
  }
}

}  // namespace

JoinServer::JoinServer(os::Loop& loop, crypto::FleetCa ca, Invites& invites, Hooks hooks)
    : loop_(loop), ca_(std::move(ca)), invites_(invites), hooks_(std::move(hooks)) {}

JoinServer::~JoinServer() = default;

void JoinServer::accept(std::unique_ptr<TlsStream> stream) {
  if (visits_.size() >= kMaxJoins) visits_.pop_front();
  Visit& visit = visits_.emplace_back();
  visit.stream = std::move(stream);
  visit.timeout = loop_.after(kVisit, [this, &visit] { drop(visit); });
  visit.stream->start({.readable = [this, &visit] { on_readable(visit); },
                       .writable = {},
                       .closed = [this, &visit](const std::string&) { drop(visit); }});
}

void JoinServer::drop(Visit& visit) {
  visits_.remove_if([&](const Visit& other) { return &other == &visit; });
}

void JoinServer::on_readable(Visit& visit) {
  const auto frame = visit.reader.next(*visit.stream);
  if (frame && !*frame) return;
  if (!frame || (*frame)->kind != FrameKind::request || visit.answered) return drop(visit);
  visit.answered = true;
  answer(visit, (*frame)->id, serve(**frame, visit.stream->peer()));
}

Result<std::string> JoinServer::serve(const Frame& frame, const std::string& peer_address) {
  const auto body = parse_json_body(frame.body);
  if (!body || frame.method != kJoinMethod) return fail("malformed join request");
  // The secret first: nobody else learns anything.
  const Bytes secret = from_hex(text_member(*body, "secret"));
  if (!invites_.is_open(secret, crypto::wall_now())) {
    return fail("the invitation is unknown, used or expired; a new one: godwit host invite");
  }
  auto host = known_host_from_json(*body);
  if (!host) return std::unexpected(host.error());
  const auto port = body->find("port");
  if (port != body->end() && port->is_number_unsigned()) {
    add_seen_address(*host, peer_address, port->get<std::uint64_t>());
  }
  const auto request = crypto::CertificateRequest::from_pem(text_member(*body, "csr"));
  if (!request) return std::unexpected(request.error());
  const auto admitted = hooks_.admit(*host);
  if (!admitted) return std::unexpected(admitted.error());
  const auto certificate = ca_.sign(*request, host->name);
  if (!certificate) return std::unexpected(certificate.error());
  invites_.use(secret);
  if (const auto stored = hooks_.joined(*host); !stored) return std::unexpected(stored.error());
  nlohmann::json hosts = nlohmann::json::array();
  for (const KnownHost& known : hooks_.hosts()) hosts.push_back(to_json(known));
  return json_text({{"certificate", certificate->pem()},
                    {"ca", ca_.certificate().pem()},
                    {"hosts", std::move(hosts)}});
}

void JoinServer::answer(Visit& visit, std::uint64_t id, const Result<std::string>& body) {
  Bytes out;
  const std::string text = body ? *body : printable(body.error().text);
  if (text.size() > kMaxBody) return drop(visit);
  encode({.kind = body ? FrameKind::reply : FrameKind::error,
          .id = id,
          .method = {},
          .body = as_bytes(text)},
         out);
  // A fresh connection takes TlsEngine::kMaxPendingCiphertext at once; a list of hosts that is
  // longer than that would need a `writable` loop.
  if (visit.stream->write(out) < out.size()) return drop(visit);
  visit.stream->finish();  // the client closes, or the time-out does
}

}  // namespace godwit::session

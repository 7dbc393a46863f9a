#include "agent/api_forward.hh"

#include <fmt/ranges.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/records.hh"
#include "http/codec.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

using http::Request;
using http::Responder;
using http::Response;
using nlohmann::json;

constexpr const char* kAt = "at";
constexpr Nanoseconds kPatience = seconds(55);  // clients wait for 60 s (http::Client)
constexpr std::size_t kMostBody = 512 * 1024;   // a session's message has 1 MiB
constexpr std::size_t kPiece = 256 * 1024;      // of which each byte may be escaped
constexpr std::size_t kMostLeft = 16;           // answers that wait; the oldest goes
constexpr Nanoseconds kLeftLife = seconds(30);  // of what nobody fetches
constexpr std::size_t kMostName = 256;          // of who asks, and from where
constexpr std::int64_t kNeverEnds = std::numeric_limits<std::int64_t>::max();

json to_json(const http::Caller& caller, const char* role) {
  return {{"role", role},        {"name", caller.name},          {"tenant", caller.tenant},
          {"from", caller.from}, {"certificate", caller.serial}, {"expires", caller.expires}};
}

// Error: the status and the text to answer with.
struct Refused {
  int status;
  std::string text;
};

std::expected<json, Refused> call_of(const Request& request) {
  json query = json::object();
  for (const auto& [key, value] : request.query) {
    if (key != kAt) query[key] = value;
  }
  json call = {{"method", request.method},
               {"path", request.path},
               {"query", query},
               {"caller", to_json(*request.caller, http::to_text(request.caller->role))}};
  if (request.body.empty()) return call;
  if (request.body.size() > kMostBody) {
    return std::unexpected(
        Refused{413, fmt::format("a request for another host has at most {} KiB: send less at once",
                                 kMostBody / 1024)});
  }
  json body = json::parse(request.body, nullptr, false);
  if (body.is_discarded()) return std::unexpected(Refused{400, "the body is not JSON"});
  call["body"] = std::move(body);
  return call;
}

std::optional<http::Role> role_of(const std::string& text) {
  if (text == "viewer") return http::Role::viewer;
  // Root there is an operator here: it shall not found, certify or read a guest's memory.
  if (text == "operator" || text == "root") return http::Role::operator_;
  return std::nullopt;
}

Result<http::Caller> caller_of(const std::string& peer, const json& object) {
  const std::string told = text_field_or(object, "role", "");
  const auto role = role_of(told);
  const std::string tenant = text_field_or(object, "tenant", "");
  if (!role || (!tenant.empty() && !is_valid_name(tenant))) {
    return fail("host {} asks for nobody that is known: '{}' of tenant '{}'", peer, told, tenant);
  }
  const json& expires = qemu::member(object, "expires");
  return http::Caller{.role = *role,
                      .name = text_field_or(object, "name", "").substr(0, kMostName),
                      .tenant = tenant,
                      .from = text_field_or(object, "from", "").substr(0, kMostName),
                      .serial = text_field_or(object, "certificate", "").substr(0, kMostName),
                      .expires = told == "root"                ? kNeverEnds
                                 : expires.is_number_integer() ? expires.get<std::int64_t>()
                                                               : 0,
                      .via = peer};
}

Result<Request> request_of(const std::string& peer, const json& call) {
  const auto caller = caller_of(peer, qemu::member(call, "caller"));
  if (!caller) return std::unexpected(caller.error());
  Request request;
  request.method = text_field_or(call, "method", "");
  request.path = text_field_or(call, "path", "");
  if (!request.path.starts_with('/')) return fail("'path' begins with '/'");
  const json query = qemu::member(call, "query");
  for (const auto& [key, value] : query.items()) {
    if (value.is_string() && key != kAt) request.query[key] = value.get<std::string>();
  }
  if (const json& body = qemu::member(call, "body"); !body.is_null()) request.body = body.dump();
  request.caller = std::make_shared<const http::Caller>(*caller);
  return request;
}

// At most kPiece bytes from `offset` on, of whole characters.
std::string piece_of(const std::string& text, std::size_t offset) {
  std::size_t end = std::min(text.size(), offset + kPiece);
  const auto is_inside = [&](std::size_t at) {
    return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80;
  };
  while (end > offset && is_inside(end)) --end;
  return text.substr(offset, end - offset);
}

}  // namespace

struct ApiForward::Coming {
  Responder responder;
  std::string host;
  Response response{};
};

ApiForward::ApiForward(os::Loop& loop, http::Server& server, Peers& peers, HostsCalled hosts_called)
    : loop_(loop), server_(server), peers_(peers), hosts_called_(std::move(hosts_called)) {}

// ---- for others ----

Result<std::string> ApiForward::host_at(const std::string& name) const {
  if (name == peers_.self()) return name;
  const auto hosts = hosts_called_(name);
  if (hosts.size() == 1) return hosts.front();
  if (hosts.empty()) {
    return fail("host {} knows no host or site '{}': see godwit host ls", peers_.self(), name);
  }
  return fail("site {} has several hosts: name one of {}", name, fmt::join(hosts, ", "));
}

bool ApiForward::is_elsewhere(const Request& request) const {
  const auto at = request.query.find(kAt);
  return at != request.query.end() && host_at(at->second) != peers_.self();
}

void ApiForward::forward(const Request& request, Responder responder) {
  const auto host = host_at(request.query.at(kAt));
  if (!host) return responder.error(404, host.error().text);
  if (!request.caller->via.empty()) {
    return responder.error(400, fmt::format("host {} passes this on already: it goes no further",
                                            request.caller->via));
  }
  const unsigned protocol = peers_.protocol(*host);
  if (protocol == 0) {
    return responder.error(503, fmt::format("host {} has no session with host {}, which is down or "
                                            "cannot be reached: see godwit host ls",
                                            peers_.self(), *host));
  }
  if (protocol < kForwardProtocol) {
    return responder.error(409, fmt::format("the agent of host {} is too old to be asked through "
                                            "another: upgrade it, or ask it by itself (-H {})",
                                            *host, *host));
  }
  if (!request.upgrade.empty()) {
    return responder.error(400,
                           fmt::format("a console or a recording comes from the agent of its "
                                       "host only: name it with -H {}",
                                       *host),
                           2);
  }
  const auto call = call_of(request);
  if (!call) return responder.error(call.error().status, call.error().text, 2);
  auto coming = std::make_shared<Coming>(Coming{std::move(responder), *host});
  peers_.request(
      *host, "api.call", *call,
      [this, coming](const Result<json>& reply) { take_piece(coming, reply); }, kPatience);
}

void ApiForward::take_piece(std::shared_ptr<Coming> coming, const Result<json>& reply) {
  if (!reply) {
    return coming->responder.error(
        504, fmt::format("{}; whether host {} has done it is not known: look there (--at {})",
                         reply.error().text, coming->host, coming->host));
  }
  Response& response = coming->response;
  if (response.body.empty()) {
    const auto status = qemu::unsigned_at(*reply, "status");
    if (status < 200 || status > 599) {
      return coming->responder.error(
          502, fmt::format("host {} answered with what is not understood", coming->host));
    }
    response.status = static_cast<int>(status);
  }
  const std::string piece = text_field_or(*reply, "text", "");
  response.body += piece;
  const std::uint64_t left = qemu::unsigned_at(*reply, "left");
  if (left == 0) return coming->responder.send(std::move(response));
  if (piece.empty() || response.body.size() + left > http::kMaxResponseBody) {
    return coming->responder.error(
        502, fmt::format("the answer of host {} is larger than {} MiB: ask it by itself (-H {})",
                         coming->host, http::kMaxResponseBody >> 20, coming->host));
  }
  peers_.request(
      coming->host, "api.rest",
      {{"id", qemu::unsigned_at(*reply, "id")}, {"offset", response.body.size()}},
      [this, coming](const Result<json>& more) { take_piece(coming, more); }, kPatience);
}

// ---- from others ----

void ApiForward::on_request(PeerRequest request, const json& body) {
  if (request.method == "api.rest") return request.answer(next_piece(request.peer, body));
  if (request.method != "api.call")
    return request.answer(fail("unknown request {}", request.method));
  auto call = request_of(request.peer, body);
  if (!call) return request.answer(std::unexpected(call.error()));
  server_.carry(*std::move(call), [this, request](const Response& response) {
    request.answer(first_piece(request.peer, response));
  });
}

json ApiForward::first_piece(const std::string& peer, const Response& response) {
  if (response.content_type != "application/json") {
    return first_piece(peer, http::error_response(400,
                                                  "only JSON comes through another host's agent: "
                                                  "name its host with -H",
                                                  2));
  }
  json first = {{"status", response.status}, {"text", piece_of(response.body, 0)}, {"left", 0}};
  const std::size_t taken = first["text"].get_ref<const std::string&>().size();
  if (taken == response.body.size()) return first;
  if (left_.size() >= kMostLeft) left_.erase(left_.begin());
  const std::uint64_t id = next_left_++;
  left_[id] = {.peer = peer, .text = response.body, .limit = loop_.after(kLeftLife, [this, id] {
                 left_.erase(id);
               })};
  first["id"] = id;
  first["left"] = response.body.size() - taken;
  return first;
}

Result<json> ApiForward::next_piece(const std::string& peer, const json& body) {
  const auto found = left_.find(qemu::unsigned_at(body, "id"));
  if (found == left_.end() || found->second.peer != peer) {
    return fail("the rest of that answer is gone: ask again");
  }
  const std::uint64_t id = found->first;
  const std::string& text = found->second.text;
  const std::uint64_t offset =
      std::min<std::uint64_t>(qemu::unsigned_at(body, "offset"), text.size());
  const std::string piece = piece_of(text, offset);
  const std::uint64_t left = text.size() - offset - piece.size();
  if (left == 0) left_.erase(found);
  return json{{"id", id}, {"text", piece}, {"left", left}};
}

}  // namespace godwit::agent

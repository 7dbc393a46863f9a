#pragma once
// What the routes have in common: reading a body, answering with a result, and what a caller may
// see.
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/records.hh"
#include "http/responder.hh"

namespace godwit::agent {

constexpr int kBadRequest = 400;
constexpr int kForbidden = 403;
constexpr int kNotFound = 404;
constexpr int kConflict = 409;
constexpr int kTooMany = 429;

// The body as JSON, or the 400 was sent.
inline std::optional<nlohmann::json> body_of(const http::Request& request,
                                             http::Responder& responder) {
  auto body = http::json_body(request);
  if (body) return *std::move(body);
  responder.error(kBadRequest, body.error().text, 2);
  return std::nullopt;
}

inline void answer(http::Responder& responder, const Result<>& result) {
  if (!result) return responder.error(kConflict, result.error().text);
  responder.json(200, nlohmann::json::object());
}

inline void answer(http::Responder& responder, const Result<nlohmann::json>& result) {
  if (!result) return responder.error(kConflict, result.error().text);
  responder.json(200, *result);
}

inline std::shared_ptr<http::Responder> shared(http::Responder& responder) {
  return std::make_shared<http::Responder>(std::move(responder));
}

// Things with a "tenant" that exist for this caller.
inline bool sees(const http::Request& request, const nlohmann::json& thing) {
  return request.caller->sees(text_field_or(thing, "tenant", ""));
}

inline std::vector<nlohmann::json> seen(const http::Request& request,
                                        std::vector<nlohmann::json> things) {
  std::erase_if(things, [&](const auto& thing) { return !sees(request, thing); });
  return things;
}

// The thing, if the caller may know of it; else the 404 was sent. `noun`: as in `godwit NOUN ls`.
inline std::optional<nlohmann::json> known(std::optional<nlohmann::json> thing, bool is_visible,
                                           std::string_view noun, const std::string& name,
                                           const std::string& host, http::Responder& responder) {
  if (thing && is_visible) return thing;
  responder.error(kNotFound, fmt::format("there is no {0} '{1}' on host {2}; see godwit {0} ls",
                                         noun, name, host));
  return std::nullopt;
}

// A new thing is of the caller's tenant, if it has one. False: asked for another, the 403 was sent.
inline bool claim_tenant(const http::Request& request, nlohmann::json& body,
                         http::Responder& responder) {
  const std::string& own = request.caller->tenant;
  if (own.empty()) return true;
  const std::string asked = text_field_or(body, "tenant", own);
  body["tenant"] = own;
  if (asked == own) return true;
  responder.error(kForbidden, fmt::format("{} works for tenant {} only", request.caller->name, own),
                  2);
  return false;
}

}  // namespace godwit::agent

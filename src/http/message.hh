#pragma once
// One HTTP/1.1 request and its answer, as values. Nothing here knows how they travel.
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/result.hh"
#include "http/caller.hh"

namespace godwit::http {

struct Request {
  std::string method;                             // "GET", upper case as sent
  std::string path;                               // still percent-encoded, without the query
  std::map<std::string, std::string> query;       // decoded; the last of equal names wins
  std::map<std::string, std::string> parameters;  // what the route's {names} matched, decoded
  std::string upgrade;                            // protocol asked for with Upgrade, or empty
  std::string last_event_id;  // of an event stream that goes on (WHATWG HTML, 9.2.4), or empty
  std::string body;
  bool keep_alive = true;
  bool carried = false;  // by another request, or from a peer: not by a connection of its own
  std::shared_ptr<const Caller> caller;  // never null once the server has it

  // The value matched by {name}; CHECKs that the route has it.
  const std::string& parameter(std::string_view name) const;
};

struct Response {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  int retry_after_s = 0;  // in a 429 or 503: when to try again
};

// The body as a JSON object; an empty body is the empty object. Anything else is an error.
Result<nlohmann::json> json_body(const Request& request);

Response json_response(int status, const nlohmann::json& value);
// {"error": text, "exit": exit}: the shape of every refusal; `exit` is the CLI's exit status.
Response error_response(int status, std::string_view text, int exit = 1);

// "%2F" -> "/"; an escape that is not two hex digits stands for itself.
std::string percent_decode(std::string_view text);
// For one path segment or query value: everything but unreserved characters (RFC 3986, 2.3).
std::string percent_encode(std::string_view text);

}  // namespace godwit::http

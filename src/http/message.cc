#include "http/message.hh"

#include <nlohmann/json.hpp>

#include "base/bytes.hh"
#include "base/check.hh"

namespace godwit::http {

const std::string& Request::parameter(std::string_view name) const {
  const auto found = parameters.find(std::string(name));
  CHECK(found != parameters.end(), "the route has no {{{}}}", name);
  return found->second;
}

Result<nlohmann::json> json_body(const Request& request) {
  if (request.body.empty()) return nlohmann::json::object();
  auto value = nlohmann::json::parse(request.body, nullptr, false);
  if (value.is_discarded()) return fail("the request's body is not JSON");
  if (!value.is_object()) return fail("the request's body is not a JSON object");
  return value;
}

Response json_response(int status, const nlohmann::json& value) {
  // A name from a guest or a peer may hold bytes that are not UTF-8: replace, never throw.
  return {.status = status,
          .content_type = "application/json",
          .body = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"};
}

Response error_response(int status, std::string_view text, int exit) {
  return json_response(status, {{"error", text}, {"exit", exit}});
}

std::string percent_decode(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const Bytes byte = text[i] == '%' ? from_hex(text.substr(i + 1, 2)) : Bytes{};
    if (byte.size() == 1) i += 2;
    out += byte.size() == 1 ? std::to_integer<char>(byte[0]) : text[i];
  }
  return out;
}

std::string percent_encode(std::string_view text) {
  static constexpr std::string_view kUnreserved =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string out;
  for (const char letter : text) {
    if (kUnreserved.contains(letter)) {
      out += letter;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(letter));
    }
  }
  return out;
}

}  // namespace godwit::http

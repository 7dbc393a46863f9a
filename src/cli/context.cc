#include "cli/context.hh"

#include <optional>
#include <ostream>

#include "cli/remote.hh"
#include "http/message.hh"

namespace godwit::cli {
namespace {

constexpr std::string_view kDefaultSocket = "/run/godwit/godwitd.sock";
constexpr std::string_view kUnixPrefix = "unix:";

// -H takes "unix:PATH", a path with a slash in it, or a host of the network.
std::optional<std::string> socket_of_host(const std::string& host) {
  if (host.starts_with(kUnixPrefix)) return host.substr(kUnixPrefix.size());
  if (host.contains('/')) return host;
  return std::nullopt;
}

json accepted(const Result<http::Reply>& reply) {
  if (!reply) throw Failure(ExitStatus::failed, reply.error().text);
  if (!reply->ok()) throw refusal(*reply);
  return reply->body;
}

}  // namespace

Failure refusal(const http::Reply& reply) {
  if (!reply.body.is_object()) {
    return {ExitStatus::failed, fmt::format("the agent answered with status {}", reply.status)};
  }
  std::string text = reply.body.value("error", fmt::format("status {}", reply.status));
  for (const json& check : reply.body.value("checks", json::array())) {
    if (check.value("ok", false)) continue;
    text += fmt::format("\n  {}: {}", check.value("name", "?"), check.value("detail", ""));
  }
  const int exit = reply.body.value("exit", 1);
  const bool known = exit >= 1 && exit <= static_cast<int>(ExitStatus::undecided);
  return {known ? static_cast<ExitStatus>(exit) : ExitStatus::failed, text};
}

bool Context::is_remote() const {
  return !at.empty() || (socket.empty() && !host.empty() && !socket_of_host(host));
}

http::Client Context::client() const { return client_at(at); }

http::Client Context::client_at(const std::string& other) const {
  if (!socket.empty()) return http::Client(http::unix_dialler(socket), other);
  const auto path = host.empty() ? std::string(kDefaultSocket) : socket_of_host(host);
  if (path) return http::Client(http::unix_dialler(*path), other);
  auto own = load_identity(identity);
  auto remote = parse_remote_host(host, own);
  return http::Client(tls_dialler(std::move(own), std::move(remote)), other);
}

json Context::fetch(std::string_view path) const { return accepted(client().request("GET", path)); }

json Context::post(std::string_view path, const json& body) const {
  return accepted(client().request("POST", path, body));
}

json Context::remove(std::string_view path, const json& body) const {
  return accepted(client().request("DELETE", path, body));
}

void Context::print_json(const json& value) const {
  io.out << value.dump(2, ' ', false, json::error_handler_t::replace) << '\n';
}

void Context::say(std::string_view line) const {
  if (!as_json) io.out << line << '\n';
}

std::string path_of(std::string_view collection, std::string_view name, std::string_view action) {
  std::string path = fmt::format("/v1/{}/{}", collection, http::percent_encode(name));
  if (!action.empty()) path += fmt::format("/{}", action);
  return path;
}

}  // namespace godwit::cli

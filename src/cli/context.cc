#include "cli/context.hh"

#include <ostream>

#include "http/message.hh"

namespace godwit::cli {
namespace {

constexpr std::string_view kDefaultSocket = "/run/godwit/godwitd.sock";
constexpr std::string_view kUnixPrefix = "unix:";

// -H takes what names a socket: "unix:PATH", or a path with a slash in it.
std::string socket_of_host(const std::string& host) {
  if (host.starts_with(kUnixPrefix)) return host.substr(kUnixPrefix.size());
  if (host.contains('/')) return host;
  throw Failure(
      ExitStatus::usage,
      fmt::format("cannot reach the agent of '{}' over the network: this version talks to agents "
                  "through unix sockets only; run godwit on that host, or name the socket "
                  "(-H unix:/run/godwit/godwitd.sock)",
                  host));
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

http::Client Context::client() const {
  if (!socket.empty()) return http::Client(socket);
  if (!host.empty()) return http::Client(socket_of_host(host));
  return http::Client(std::string(kDefaultSocket));
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

#include "http/router.hh"

#include <algorithm>

#include "base/check.hh"

namespace godwit::http {
namespace {

std::vector<std::string> split(std::string_view path) {
  CHECK(path.starts_with('/'), "'{}'", path);
  std::vector<std::string> segments;
  while (!path.empty()) {
    path.remove_prefix(1);
    const std::size_t end = std::min(path.find('/'), path.size());
    segments.emplace_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return segments;
}

bool is_name(std::string_view segment) { return segment.starts_with('{'); }

bool matches(const std::vector<std::string>& pattern, const std::vector<std::string>& path) {
  return std::ranges::equal(pattern, path, [](const std::string& want, const std::string& given) {
    return is_name(want) ? !given.empty() : want == given;
  });
}

std::map<std::string, std::string> captured(const std::vector<std::string>& pattern,
                                            const std::vector<std::string>& path) {
  std::map<std::string, std::string> parameters;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (!is_name(pattern[i])) continue;
    parameters[pattern[i].substr(1, pattern[i].size() - 2)] = percent_decode(path[i]);
  }
  return parameters;
}

std::string refusal_of(const Caller& caller, Access access) {
  if (access == Access::root) return "only root does this, through the agent's unix socket";
  return fmt::format("{} is a {}: it reads and changes nothing; ask for an operator's certificate",
                     caller.name, to_text(caller.role));
}

}  // namespace

std::vector<Router::Entry> Router::entries() const {
  std::vector<Entry> all;
  for (const Route& route : routes_) {
    std::string pattern;
    for (const auto& segment : route.segments) pattern += "/" + segment;
    all.push_back({route.method, pattern, route.access});
  }
  return all;
}

void Router::add(std::string method, std::string_view pattern, Access access, Handler handler) {
  Route route{std::move(method), split(pattern), access, std::move(handler)};
  for (const Route& other : routes_) {
    CHECK(other.method != route.method || other.segments != route.segments, "{} {} is there twice",
          route.method, pattern);
  }
  routes_.push_back(std::move(route));
}

void Router::dispatch(Request request, Responder responder) const {
  if (!request.path.starts_with('/')) {
    return responder.send(error_response(400, "the request's path does not start with '/'"));
  }
  const auto path = split(request.path);
  bool path_known = false;
  for (const Route& route : routes_) {
    if (!matches(route.segments, path)) continue;
    path_known = true;
    if (route.method != request.method) continue;
    if (!permits(request.caller->role, route.access)) {
      return responder.send(error_response(403, refusal_of(*request.caller, route.access)));
    }
    request.parameters = captured(route.segments, path);
    return route.handler(request, std::move(responder));
  }
  if (path_known) {
    return responder.send(
        error_response(405, fmt::format("{} cannot be used on {}", request.method, request.path)));
  }
  responder.send(error_response(404, fmt::format("there is no {}", request.path)));
}

}  // namespace godwit::http

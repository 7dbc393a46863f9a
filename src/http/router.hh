#pragma once
// Picks a handler by method and path. Patterns are literal segments and {names}, each matching one
// non-empty segment: "/v1/vms/{name}/console".
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.hh"
#include "http/responder.hh"

namespace godwit::http {

class Router final {
 public:
  using Handler = std::function<void(const Request&, Responder)>;

  // CHECKs that the pattern starts with '/' and is not there yet for this method.
  void add(std::string method, std::string_view pattern, Handler handler);
  // Calls the handler with `request.parameters` filled; answers 404 or 405 itself. What the handler
  // throws leaves here (the connection makes a 500 of it).
  void dispatch(Request request, Responder responder) const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Handler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace godwit::http

#pragma once
// Picks a handler by method and path. Patterns are literal segments and {names}, each matching one
// non-empty segment: "/v1/vms/{name}/console". A caller whose role does not permit the route is
// answered 403 before its handler is called.
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
  void add(std::string method, std::string_view pattern, Access access, Handler handler);
  // Calls the handler with `request.parameters` filled; answers 403, 404 or 405 itself. What the
  // handler throws leaves here (the connection makes a 500 of it).
  void dispatch(Request request, Responder responder) const;

  struct Entry {
    std::string method;
    std::string pattern;
    Access access;
  };
  std::vector<Entry> entries() const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;
    Access access;
    Handler handler;
  };
  std::vector<Route> routes_;
};

}  // namespace godwit::http

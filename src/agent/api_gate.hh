#pragma once
// What every request passes before it reaches its route: is the caller's certificate still good,
// does it ask too often, and if it changes something, what shall the audit log say. The unix socket
// is neither limited nor refused. Control thread.
#include <functional>
#include <map>
#include <string>

#include "agent/audit.hh"
#include "base/units.hh"
#include "http/responder.hh"

namespace godwit::agent {

struct RateLimits {
  // A person types slower, a dashboard that asks for all lists every second asks slower; sixteen
  // connections (http::Server::kMaxPerCaller) of a program in a loop do not.
  double requests_per_second = 20;
  double burst = 60;
};

class ApiGate final {
 public:
  using IsRevoked = std::function<bool(const std::string& serial)>;

  ApiGate(Audit& audit, IsRevoked is_revoked, std::function<Instant()> now, RateLimits limits = {});

  // False: answered (401, 429).
  bool admit(const http::Request& request, http::Responder& responder);
  // The same for a request that goes on to another host, whose audit log it is in.
  bool let_pass(const http::Request& request, http::Responder& responder);
  // Whether a connection of this caller may go on.
  bool is_good(const http::Caller& caller) const;

  struct Counters {
    std::uint64_t requests = 0, limited = 0, refused = 0;
  };
  const Counters& counters() const { return counters_; }

 private:
  // By name, not by certificate: more certificates are not more requests.
  struct Bucket {
    double tokens = 0;
    Instant filled{};
    Instant noted{};  // when a refusal of this caller was last in the audit log
  };
  static constexpr std::size_t kMaxBuckets = 2048;

  Bucket& bucket(const std::string& name);
  bool take(const std::string& name);
  bool may_note_refusal(const http::Caller& caller);
  void audit(const http::Request& request, http::Responder& responder);

  Audit& audit_;
  IsRevoked is_revoked_;
  std::function<Instant()> now_;
  const RateLimits limits_;
  std::map<std::string, Bucket> buckets_;
  Counters counters_;
};

}  // namespace godwit::agent

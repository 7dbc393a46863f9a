#include "agent/api_gate.hh"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "agent/api_answers.hh"
#include "os/wall_clock.hh"

namespace godwit::agent {
namespace {

constexpr int kUnauthorized = 401;
// A viewer that tries to change things in a loop must not push what matters out of the audit log.
constexpr Nanoseconds kRefusalInterval = seconds(10);

// Of a request's body these say on what it acts. Nothing else is kept: an invitation's token, a
// kernel's command line may be secrets.
constexpr std::array kTold = {"name",
                              "vm",
                              "guest",
                              "file",
                              "to",
                              "a",
                              "b",
                              "kind",
                              "bridge",
                              "tenant",
                              "role",
                              "ttl",
                              "force",
                              "target_destroyed",
                              "source_destroyed",
                              "dry_run"};

// What is in a batch has entries of its own.
bool changes(const http::Request& request) {
  if (request.path == "/v1/batch") return false;
  return request.method != "GET" || !request.upgrade.empty();
}

nlohmann::json told(const http::Request& request) {
  nlohmann::json on = nlohmann::json::object();
  const auto body = nlohmann::json::parse(request.body, nullptr, false);
  for (const char* key : kTold) {
    if (!body.is_object() || !body.contains(key) || body[key].is_structured()) continue;
    on[key] = body[key];
  }
  for (const char* key : {"vms", "ports"}) {
    for (const auto& each : array_field(body, key)) {
      if (each.is_string()) on[key].push_back(each);
    }
  }
  return on;
}

// What the answer adds: whose it was, the id that it got, which fleet, why it was refused.
void add_answer(nlohmann::json& entry, int status, std::string_view body) {
  entry["status"] = status;
  const auto answer = nlohmann::json::parse(body, nullptr, false);
  if (!answer.is_object()) return;
  for (const char* key : {"tenant", "error"}) {
    if (answer.contains(key) && answer[key].is_string()) entry[key] = answer[key];
  }
  for (const char* key : {"id", "fleet", "fingerprint"}) {
    if (answer.contains(key) && answer[key].is_string()) entry["on"][key] = answer[key];
  }
}

}  // namespace

ApiGate::ApiGate(Audit& audit, IsRevoked is_revoked, std::function<Instant()> now,
                 RateLimits limits)
    : audit_(audit), is_revoked_(std::move(is_revoked)), now_(std::move(now)), limits_(limits) {}

bool ApiGate::is_good(const http::Caller& caller) const {
  return !caller.remote() ||
         (caller.expires > os::wall_clock_seconds() && !is_revoked_(caller.serial));
}

ApiGate::Bucket& ApiGate::bucket(const std::string& name) {
  if (buckets_.size() >= kMaxBuckets && !buckets_.contains(name)) {
    std::erase_if(buckets_, [&](const auto& entry) {  // those that are full again
      const double idle = static_cast<double>((now_() - entry.second.filled).count()) / 1e9;
      return idle * limits_.requests_per_second > limits_.burst;
    });
  }
  const auto [at, fresh] = buckets_.try_emplace(name);
  if (fresh) at->second = {.tokens = limits_.burst, .filled = now_(), .noted = Instant::min()};
  return at->second;
}

bool ApiGate::take(const std::string& name) {
  Bucket& own = bucket(name);
  const Instant now = now_();
  const double passed = static_cast<double>((now - own.filled).count()) / 1e9;
  own.tokens = std::min(limits_.burst, own.tokens + passed * limits_.requests_per_second);
  own.filled = now;
  if (own.tokens < 1) return false;
  own.tokens -= 1;
  return true;
}

bool ApiGate::may_note_refusal(const http::Caller& caller) {
  if (!caller.remote()) return true;
  Bucket& own = bucket(caller.name);
  const Instant now = now_();
  if (own.noted != Instant::min() && now - own.noted < kRefusalInterval) return false;
  own.noted = now;
  return true;
}

void ApiGate::audit(const http::Request& request, http::Responder& responder) {
  nlohmann::json entry = to_json(*request.caller);
  entry["did"] = request.method + " " + http::percent_decode(request.path);
  entry["on"] = told(request);
  if (!request.caller->tenant.empty()) entry["tenant"] = request.caller->tenant;
  responder.on_answer([this, entry = std::move(entry), caller = request.caller](
                          int status, std::string_view body) mutable {
    if (status == kForbidden && !may_note_refusal(*caller)) return;
    add_answer(entry, status, body);
    audit_.record(std::move(entry));
  });
}

bool ApiGate::admit(const http::Request& request, http::Responder& responder) {
  if (!let_pass(request, responder)) return false;
  if (changes(request)) audit(request, responder);
  return true;
}

bool ApiGate::let_pass(const http::Request& request, http::Responder& responder) {
  const http::Caller& caller = *request.caller;
  ++counters_.requests;
  if (!is_good(caller)) {
    ++counters_.refused;
    responder.error(kUnauthorized,
                    fmt::format("the certificate of {} has ended or was revoked: ask for another "
                                "(godwit user add)",
                                caller.name));
    return false;
  }
  // What is carried was counted with what carries it, or by the peer.
  if (caller.remote() && !request.carried && !take(caller.name)) {
    ++counters_.limited;
    auto answer =
        http::error_response(kTooMany, fmt::format("{} asks more than {} times a second: wait",
                                                   caller.name, limits_.requests_per_second));
    answer.retry_after_s =
        std::max(1, static_cast<int>(std::ceil(1 / limits_.requests_per_second)));
    responder.send(std::move(answer));
    return false;
  }
  return true;
}

}  // namespace godwit::agent

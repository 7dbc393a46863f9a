// POST /v1/batch: many requests in one, answered together.
//
// They are handled as if each had come by itself: routed, refused, entered in the audit log. Those
// whose answer waits for something (another host, mostly) run beside each other. What only records
// ports, components and wires is recorded together: a disk takes a thousand documents at once in
// little more than the time that it takes for one.
#include <algorithm>
#include <array>

#include "agent/api.hh"
#include "agent/api_answers.hh"

namespace godwit::agent {
namespace {

using http::Access;
using http::Request;
using http::Responder;
using http::Response;
using nlohmann::json;

constexpr const char* kPath = "/v1/batch";
constexpr std::size_t kMostRequests = 4096;
constexpr std::size_t kMostOpen = 256;           // of one batch, beside each other
constexpr int kMostBatches = 8;                  // at a time
constexpr Nanoseconds kTurn = milliseconds(20);  // then the loop has other work, too

// What has no effect but on this agent and its records; the others record before they act.
bool may_be_grouped(const Request& request) {
  return std::ranges::any_of(std::array{"/v1/ports", "/v1/components", "/v1/wires"},
                             [&](const char* path) { return request.path.starts_with(path); });
}

Result<Request> request_of(const json& object, const Request& batch) {
  const auto method = text_field(object, "method");
  const auto path = text_field(object, "path");
  if (!method) return std::unexpected(method.error());
  if (!path) return std::unexpected(path.error());
  if (!path->starts_with('/') || path->starts_with(kPath)) {
    return fail("'{}' cannot be asked in a batch", *path);
  }
  Request request;
  request.method = *method;
  request.path = *path;
  request.caller = batch.caller;
  const json query = object.value("query", json::object());
  for (const auto& [key, value] : query.items()) {
    if (value.is_string()) request.query[key] = value.get<std::string>();
  }
  if (object.contains("body") && !object["body"].is_null()) request.body = object["body"].dump();
  return request;
}

class Batch final : public std::enable_shared_from_this<Batch> {
 public:
  Batch(http::Server& server, Parts parts, std::vector<Request> requests, Responder responder,
        std::shared_ptr<int> running)
      : server_(server),
        parts_(parts),
        requests_(std::move(requests)),
        answers_(requests_.size()),
        responder_(std::move(responder)),
        running_(std::move(running)) {
    ++*running_;
  }
  ~Batch() { --*running_; }
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // One turn of the loop's.
  void run() {
    const Instant end = parts_.loop.now() + kTurn;
    in_turn_ = true;
    while (next_ < requests_.size() && open_ < kMostOpen && parts_.loop.now() < end) {
      if (may_be_grouped(requests_[next_])) {
        run_group(end);
      } else {
        begin(next_++);
      }
    }
    in_turn_ = false;
    go_on();
  }

 private:
  void run_group(Instant end) {
    const std::size_t first = next_;
    parts_.store.begin_group();
    while (next_ < requests_.size() && open_ < kMostOpen && parts_.loop.now() < end &&
           may_be_grouped(requests_[next_])) {
      begin(next_++);
    }
    const auto kept = parts_.store.end_group();
    if (kept) return;
    for (std::size_t i = first; i < next_; ++i) {
      json& answer = answers_[i];
      if (requests_[i].method == "GET" || answer.is_null() || answer["status"] >= kBadRequest) {
        continue;
      }
      answer = {{"status", kConflict}, {"body", {{"error", kept.error().text}, {"exit", 1}}}};
    }
  }

  void begin(std::size_t index) {
    ++open_;
    server_.carry(Request(requests_[index]), [self = shared_from_this(), index](Response response) {
      self->answered(index, response);
    });
  }

  void answered(std::size_t index, const Response& response) {
    --open_;
    json body = json::parse(response.body, nullptr, false);
    if (body.is_discarded()) body = response.body;  // figures for Prometheus
    answers_[index] = {{"status", response.status}, {"body", std::move(body)}};
    if (!in_turn_) go_on();
  }

  void go_on() {
    if (next_ == requests_.size()) {
      if (open_ == 0) responder_.json(200, answers_);
      return;
    }
    if (open_ == kMostOpen || std::exchange(posted_, true)) return;
    parts_.loop.post([self = shared_from_this()] {
      self->posted_ = false;
      self->run();
    });
  }

  http::Server& server_;
  Parts parts_;
  std::vector<Request> requests_;
  std::vector<json> answers_;
  Responder responder_;
  std::shared_ptr<int> running_;
  std::size_t next_ = 0, open_ = 0;
  bool in_turn_ = false, posted_ = false;
};

void run_batch(http::Server& server, Parts parts, const std::shared_ptr<int>& running,
               const Request& request, Responder responder) {
  const auto body = body_of(request, responder);
  if (!body) return;
  const json& asked = array_field(*body, "requests");
  if (asked.empty() || asked.size() > kMostRequests) {
    return responder.error(
        kBadRequest, fmt::format("'requests' is a list of 1 to {} requests", kMostRequests), 2);
  }
  if (*running >= kMostBatches) {
    return responder.error(kTooMany, fmt::format("{} batches run at this moment: wait", *running));
  }
  std::vector<Request> requests;
  for (const json& each : asked) {
    auto one = request_of(each, request);
    if (!one) {
      return responder.error(kBadRequest,
                             fmt::format("request {}: {}", requests.size(), one.error().text), 2);
    }
    requests.push_back(*std::move(one));
  }
  std::make_shared<Batch>(server, parts, std::move(requests), std::move(responder), running)->run();
}

}  // namespace

void add_batch_route(http::Server& server, Parts parts) {
  // Each request in it is permitted or not by its own route.
  server.route("POST", kPath, Access::read,
               [&server, parts, running = std::make_shared<int>(0)](const Request& request,
                                                                    Responder responder) {
                 run_batch(server, parts, running, request, std::move(responder));
               });
}

}  // namespace godwit::agent

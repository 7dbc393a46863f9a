#include "http/responder.hh"

#include <exception>
#include <nlohmann/json.hpp>
#include <utility>

#include "http/connection.hh"

namespace godwit::http {

Responder::Responder(std::weak_ptr<Connection> connection, std::uint64_t request)
    : connection_(std::move(connection)),
      request_(request),
      exceptions_(std::uncaught_exceptions()) {}

Responder::Responder(Sink sink) : sink_(std::move(sink)), exceptions_(std::uncaught_exceptions()) {}

Responder::Responder(Responder&& other) noexcept
    : connection_(std::exchange(other.connection_, {})),
      request_(other.request_),
      sink_(std::exchange(other.sink_, nullptr)),
      answered_(std::exchange(other.answered_, nullptr)),
      exceptions_(other.exceptions_) {}

Responder::~Responder() {
  // A handler that throws takes its responder with it; the connection answers with the text.
  if (std::uncaught_exceptions() > exceptions_) {
    report(500, {});
    return;
  }
  error(500, "the agent dropped this request without an answer");
}

std::shared_ptr<Connection> Responder::claim() {
  auto connection = std::exchange(connection_, {}).lock();
  return connection && connection->awaits(request_) ? connection : nullptr;
}

void Responder::report(int status, std::string_view body) {
  if (auto answered = std::exchange(answered_, nullptr)) answered(status, body);
}

void Responder::send(Response response) {
  report(response.status, response.body);
  if (auto sink = std::exchange(sink_, nullptr)) return sink(std::move(response));
  if (const auto connection = claim()) connection->answer(response);
}

bool Responder::refuse_stream() {
  if (!sink_) return false;
  error(400, "streams come from the agent that is asked only: name its host with -H", 2);
  return true;
}

void Responder::json(int status, const nlohmann::json& value) {
  send(json_response(status, value));
}

void Responder::error(int status, std::string_view text, int exit) {
  send(error_response(status, text, exit));
}

std::shared_ptr<EventStream> Responder::events() {
  if (refuse_stream()) return std::make_shared<EventStream>(std::weak_ptr<Connection>{});
  report(200, {});
  const auto connection = claim();
  auto stream = std::make_shared<EventStream>(connection);
  if (connection) connection->start_events(stream);
  return stream;
}

void Responder::upgrade(std::string_view protocol, OnUpgraded on_upgraded) {
  if (refuse_stream()) return;
  report(101, {});
  if (const auto connection = claim()) connection->upgrade(protocol, std::move(on_upgraded));
}

bool Responder::abandoned() const {
  if (sink_) return false;
  const auto connection = connection_.lock();
  return !connection || !connection->awaits(request_);
}

bool EventStream::push(std::string_view event, const nlohmann::json& data, std::string_view id) {
  const auto connection = connection_.lock();
  if (!connection) return false;
  return connection->push_event(
      event, data.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace), id);
}

void EventStream::close() {
  closed_ = nullptr;
  if (const auto connection = std::exchange(connection_, {}).lock()) connection->end_events();
}

void EventStream::peer_gone() {
  connection_.reset();
  if (auto closed = std::exchange(closed_, nullptr)) closed();
}

}  // namespace godwit::http

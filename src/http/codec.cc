#include "http/codec.hh"

#include <boost/asio/buffer.hpp>
#include <boost/beast/http.hpp>
#include <sstream>

#include "base/check.hh"

namespace godwit::http {
namespace {

namespace beast = boost::beast::http;
using Code = boost::system::error_code;

constexpr unsigned kVersion11 = 11;

boost::asio::const_buffer buffer_of(BytesView input) { return {input.data(), input.size()}; }

Refusal refusal_of(const Code& code) {
  if (code == beast::error::header_limit) return {431, "the header is too large"};
  if (code == beast::error::body_limit) return {413, "the body is too large"};
  return {400, "not an HTTP/1.1 message: " + code.message()};
}

// Feeds until the parser wants no more: Beast takes the header and the body in separate steps, and
// stops between them unless it is eager.
template <class Parser>
std::size_t feed_parser(Parser& parser, BytesView input, std::optional<Refusal>& refusal) {
  std::size_t used = 0;
  while (!refusal && used < input.size() && !parser.is_done()) {
    if (parser.is_header_done() && !parser.eager()) break;
    Code code;
    const std::size_t step = parser.put(buffer_of(input.subspan(used)), code);
    used += step;
    if (code == beast::error::need_more) {
      // Beast looks for the end of the header without a limit until it sees it.
      if (!parser.is_header_done() && input.size() - used > kMaxHeaderBytes) {
        refusal = refusal_of(beast::error::header_limit);
      }
      break;
    }
    if (code) refusal = refusal_of(code);
    if (step == 0) break;
  }
  return used;
}

// Beast (1.81) ends the process by an assertion in a last chunk that is broken; nobody needs chunks
// here: all messages know their length.
template <class Parser>
bool refuse_chunks(const Parser& parser, std::optional<Refusal>& refusal) {
  if (!parser.chunked()) return false;
  refusal = Refusal{411, "a body in chunks is not taken: send Content-Length"};
  return true;
}

std::map<std::string, std::string> parse_query(std::string_view text) {
  std::map<std::string, std::string> query;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find('&'));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const std::size_t equals = std::min(item.find('='), item.size());
    query[percent_decode(item.substr(0, equals))] =
        percent_decode(item.substr(std::min(item.size(), equals + 1)));
  }
  return query;
}

template <class Message>
std::string written(Message& message) {
  message.prepare_payload();
  std::ostringstream out;
  out << message;
  return std::move(out).str();
}

}  // namespace

struct RequestParser::Beast {
  beast::request_parser<beast::string_body> parser;
  Beast() {
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxRequestBody);
  }
};

RequestParser::RequestParser() : beast_(std::make_unique<Beast>()) {}
RequestParser::~RequestParser() = default;

std::size_t RequestParser::feed(BytesView input) {
  auto& parser = beast_->parser;
  std::size_t used = feed_parser(parser, input, refusal_);
  if (refusal_ || !parser.is_header_done() || parser.eager()) return used;
  if (refuse_chunks(parser, refusal_)) return used;
  parser.eager(true);
  used += feed_parser(parser, input.subspan(used), refusal_);
  return used;
}

bool RequestParser::complete() const { return !refusal_ && beast_->parser.is_done(); }

Request RequestParser::take() {
  CHECK(complete());
  auto message = beast_->parser.release();
  beast_ = std::make_unique<Beast>();
  Request request;
  request.method = message.method_string();
  const std::string target(message.target());
  const std::size_t mark = std::min(target.find('?'), target.size());
  request.path = target.substr(0, mark);
  request.query = parse_query(std::string_view(target).substr(std::min(target.size(), mark + 1)));
  request.keep_alive = message.keep_alive();
  if (beast::token_list(message[beast::field::connection]).exists("upgrade")) {
    request.upgrade = std::string(message[beast::field::upgrade]);
  }
  request.last_event_id = std::string(message["Last-Event-ID"]);
  request.body = std::move(message.body());
  return request;
}

struct ResponseParser::Beast {
  beast::response_parser<beast::string_body> parser;
  Beast() {
    parser.header_limit(kMaxHeaderBytes);
    parser.body_limit(kMaxResponseBody);
  }
};

ResponseParser::ResponseParser() : beast_(std::make_unique<Beast>()) {}
ResponseParser::~ResponseParser() = default;

std::size_t ResponseParser::feed(BytesView input) {
  return feed_parser(beast_->parser, input, refusal_);
}

void ResponseParser::read_body() {
  if (!refuse_chunks(beast_->parser, refusal_)) beast_->parser.eager(true);
}

void ResponseParser::end_of_input() {
  if (complete() || refusal_) return;
  Code code;
  // It asserts that there was something.
  if (beast_->parser.got_some()) beast_->parser.put_eof(code);
  if (code) refusal_ = Refusal{400, "the connection closed inside a message"};
}

bool ResponseParser::header_complete() const { return beast_->parser.is_header_done(); }
bool ResponseParser::complete() const { return !refusal_ && beast_->parser.is_done(); }
int ResponseParser::status() const { return static_cast<int>(beast_->parser.get().result_int()); }
std::string ResponseParser::content_type() const {
  return std::string(beast_->parser.get()[beast::field::content_type]);
}
const std::string& ResponseParser::body() const { return beast_->parser.get().body(); }

std::string write_response(const Response& response, bool keep_alive) {
  beast::response<beast::string_body> message;
  message.version(kVersion11);
  message.result(static_cast<unsigned>(response.status));
  message.keep_alive(keep_alive);
  message.set(beast::field::content_type, response.content_type);
  message.set(beast::field::cache_control, "no-store");
  if (response.retry_after_s > 0) {
    message.set(beast::field::retry_after, std::to_string(response.retry_after_s));
  }
  message.body() = response.body;
  return written(message);
}

std::string write_event_stream_header() {
  return "HTTP/1.1 200 OK\r\n"
         "Content-Type: text/event-stream\r\n"
         "Cache-Control: no-store\r\n"
         "Connection: close\r\n\r\n";
}

std::string write_upgrade_header(std::string_view protocol) {
  return fmt::format(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n", protocol);
}

std::string write_request(std::string_view method, std::string_view target, std::string_view body,
                          std::string_view upgrade) {
  beast::request<beast::string_body> message;
  message.version(kVersion11);
  message.method_string(std::string(method));
  message.target(std::string(target));
  message.set(beast::field::host, "godwit");
  if (!upgrade.empty()) {
    message.set(beast::field::connection, "Upgrade");
    message.set(beast::field::upgrade, std::string(upgrade));
  } else {
    message.keep_alive(false);
  }
  if (!body.empty()) message.set(beast::field::content_type, "application/json");
  message.body() = std::string(body);
  return written(message);
}

}  // namespace godwit::http

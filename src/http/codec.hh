#pragma once
// HTTP/1.1 without I/O: parsers are fed bytes, writers return bytes. Boost.Beast does the work and
// stays inside codec.cc (its headers cost seconds per including file).
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.hh"
#include "http/message.hh"

namespace godwit::http {

// A message beyond these is refused while it arrives; memory per connection is bounded by them.
constexpr std::size_t kMaxHeaderBytes = 16 * 1024;
constexpr std::size_t kMaxRequestBody = 1024 * 1024;
constexpr std::size_t kMaxResponseBody = 16 * 1024 * 1024;

// Why a message cannot be read; nothing after it on the connection can be either.
struct Refusal {
  int status = 400;  // 400, 411 a body in chunks, 413 body too large, 431 header too large
  std::string text;
};

// Reads one request after another from one connection.
class RequestParser final {
 public:
  RequestParser();
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  // Bytes used; the rest must be given again together with what follows it. Takes none after a
  // request is complete (until take()) or after a refusal.
  std::size_t feed(BytesView input);
  bool complete() const;
  const std::optional<Refusal>& refusal() const { return refusal_; }
  // The complete request; the parser is ready for the next.
  Request take();

 private:
  struct Beast;
  std::unique_ptr<Beast> beast_;
  std::optional<Refusal> refusal_;
};

// Reads one response. After its header, status() and the fields are known; a body that has no end
// of its own (events, an upgraded connection) is left to the caller: stop feeding then.
class ResponseParser final {
 public:
  ResponseParser();
  ~ResponseParser();
  ResponseParser(const ResponseParser&) = delete;
  ResponseParser& operator=(const ResponseParser&) = delete;

  std::size_t feed(BytesView input);
  void end_of_input();  // the peer closed: ends a body without a length
  bool header_complete() const;
  bool complete() const;
  int status() const;
  std::string content_type() const;
  const std::string& body() const;
  const std::optional<Refusal>& refusal() const { return refusal_; }
  // From here on feed() also takes the body; before it, it stops after the header.
  void read_body();

 private:
  struct Beast;
  std::unique_ptr<Beast> beast_;
  std::optional<Refusal> refusal_;
};

// A whole response with its Content-Length.
std::string write_response(const Response& response, bool keep_alive);
// Only the header; events follow until the connection closes.
std::string write_event_stream_header();
std::string write_upgrade_header(std::string_view protocol);
// `upgrade` may be empty; a body is sent as application/json.
std::string write_request(std::string_view method, std::string_view target, std::string_view body,
                          std::string_view upgrade);

}  // namespace godwit::http

#pragma once
// The right to answer one request, once, now or later, in the server's loop thread. A responder
// that is destroyed unused answers 500, so that no client waits for ever; after the client has left
// every call does nothing.
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "http/message.hh"
#include "os/byte_stream.hh"

namespace godwit::http {

class Connection;
class EventStream;

class Responder final {
 public:
  // Takes over the connection after the 101 went out; bytes the client sent early are read first.
  using OnUpgraded = std::move_only_function<void(std::unique_ptr<os::ByteStream>)>;

  // Takes the answer to a request that was carried: by another request, or from a peer.
  using Sink = std::move_only_function<void(Response)>;

  Responder(std::weak_ptr<Connection> connection, std::uint64_t request);
  explicit Responder(Sink sink);
  Responder(Responder&& other) noexcept;
  Responder& operator=(Responder&&) = delete;
  ~Responder();

  void send(Response response);
  void json(int status, const nlohmann::json& value);
  void error(int status, std::string_view text, int exit = 1);  // error_response()
  // Starts a stream of events; it ends when the returned object is destroyed or closed. Streams
  // are not carried: a sink gets a refusal, of this and of an upgrade.
  std::shared_ptr<EventStream> events();
  void upgrade(std::string_view protocol, OnUpgraded on_upgraded);
  // Called once with what is answered (for events and upgrades only the status), also when nobody
  // is there to hear it: for those who keep a record.
  using OnAnswer = std::move_only_function<void(int status, std::string_view body)>;
  void on_answer(OnAnswer handler) { answered_ = std::move(handler); }
  // True when an answer would reach nobody.
  bool abandoned() const;

 private:
  std::shared_ptr<Connection> claim();
  void report(int status, std::string_view body);
  bool refuse_stream();

  std::weak_ptr<Connection> connection_;
  std::uint64_t request_ = 0;
  Sink sink_;
  OnAnswer answered_;
  int exceptions_ = 0;  // in flight when this was made: see the destructor
};

// Server-sent events to one client. Heartbeats are sent by the connection. A client that reads so
// slowly that more than kMaxEventBacklog bytes wait is cut off.
class EventStream final {
 public:
  explicit EventStream(std::weak_ptr<Connection> connection) : connection_(std::move(connection)) {}
  ~EventStream() { close(); }
  EventStream(const EventStream&) = delete;
  EventStream& operator=(const EventStream&) = delete;

  static constexpr std::size_t kMaxEventBacklog = 1024 * 1024;

  // False when the client is gone (or was just cut off). With `id` a client that lost the stream
  // can ask to go on behind this event (Last-Event-ID).
  bool push(std::string_view event, const nlohmann::json& data, std::string_view id = {});
  // Ends the stream in order, after what was pushed.
  void close();
  bool open() const { return !connection_.expired(); }
  // Called once when the client leaves or is cut off, never from inside push() or after close().
  void on_closed(std::move_only_function<void()> handler) { closed_ = std::move(handler); }

 private:
  friend class Connection;
  void peer_gone();

  std::weak_ptr<Connection> connection_;
  std::move_only_function<void()> closed_;
};

}  // namespace godwit::http

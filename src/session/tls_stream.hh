#pragma once
// A ByteStream that is a TLS connection over another ByteStream: a socket, or again a TlsStream (a
// relayed connection is TLS to the peer inside TLS to the relay). Lives in its loop's thread.
//
// Plaintext is decrypted when it is read, so a consumer that stops reading stops the peer. An end
// without close_notify is reported as a fault: a cut connection must not look like an orderly end.
#include <memory>

#include "crypto/tls.hh"
#include "os/byte_stream.hh"
#include "os/loop.hh"

namespace godwit::session {

class TlsStream final : public os::ByteStream {
 public:
  using Done = std::move_only_function<void(Result<>)>;

  TlsStream(os::Loop& loop, std::unique_ptr<os::ByteStream> lower, crypto::TlsEngine engine);

  // Once, first. `done` may destroy the stream. After a failure the peer is told by an alert; the
  // stream then swallows what comes until the lower stream ends (drained()).
  void handshake(Done done);
  // After the handshake; again to hand the stream to another owner. Calls nothing before it
  // returns, then `readable` and `writable` once each.
  void start(Events events) override;
  std::size_t read(MutableBytes into) override;
  std::size_t write(BytesView from) override;
  void finish() override;
  std::string peer() const override { return lower_->peer(); }

  const crypto::TlsEngine& tls() const { return engine_; }
  // Nothing more will come or go: destroying it now loses no alert.
  bool drained() const { return lower_closed_; }
  // What the owner of a lane needs for tuning its socket. Never null.
  os::ByteStream& lower() { return *lower_; }

 private:
  void on_lower_readable();
  void on_lower_writable();
  void on_lower_closed(std::string reason);
  void advance_handshake();
  void end_handshake();
  bool feed_some();
  void flush();
  void report_end();
  bool emit(std::move_only_function<void()> Events::* callback);

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> lower_;
  crypto::TlsEngine engine_;
  Done handshake_done_;
  // Shared so that a callback may destroy the stream, or start it anew, while it runs.
  std::shared_ptr<Events> events_;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
  os::Loop::Timer wake_;
  os::Loop::Timer closing_;
  bool want_writable_ = false;
  bool finishing_ = false;
  bool lower_finished_ = false;
  bool lower_closed_ = false;
  bool end_reported_ = false;
  std::string lower_reason_;
};

}  // namespace godwit::session

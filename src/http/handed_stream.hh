#pragma once
// A byte stream whose reader can be replaced while it runs: the server reads the request, then an
// upgrade hands the same stream on, with the bytes that were read too far put back in front.
#include <memory>

#include "os/byte_stream.hh"
#include "os/loop.hh"

namespace godwit::http {

class HandedStream final : public os::ByteStream {
 public:
  HandedStream(os::Loop& loop, std::unique_ptr<os::ByteStream> inner);

  // May be called again: the new events replace the old ones, and `readable` (and `closed`, if it
  // came before) follow from the loop.
  void start(Events events) override;
  std::size_t read(MutableBytes into) override;
  std::size_t write(BytesView from) override { return inner_->write(from); }
  void finish() override { inner_->finish(); }
  std::string peer() const override { return inner_->peer(); }

  // The next read() returns these first.
  void unread(Bytes bytes) { put_back_ = std::move(bytes); }

 private:
  void start_inner();
  void replay();

  os::Loop& loop_;
  std::unique_ptr<os::ByteStream> inner_;
  std::shared_ptr<Events> events_;  // shared: a callback may replace them, or destroy this stream
  Bytes put_back_;
  std::string closed_reason_;
  bool closed_ = false;
  os::Loop::Timer replay_timer_;
};

}  // namespace godwit::http

#include "session/tls_stream.hh"

#include <array>

#include "base/check.hh"

namespace godwit::session {
namespace {

using State = crypto::TlsEngine::State;

constexpr std::size_t kChunk = 32 * 1024;  // two full records

}  // namespace

TlsStream::TlsStream(os::Loop& loop, std::unique_ptr<os::ByteStream> lower,
                     crypto::TlsEngine engine)
    : loop_(loop), lower_(std::move(lower)), engine_(std::move(engine)) {}

void TlsStream::handshake(Done done) {
  handshake_done_ = std::move(done);
  lower_->start({.readable = [this] { on_lower_readable(); },
                 .writable = [this] { on_lower_writable(); },
                 .closed = [this](std::string reason) { on_lower_closed(std::move(reason)); }});
  flush();
}

void TlsStream::start(Events events) {
  CHECK(!handshake_done_, "start before the end of the handshake");
  events_ = std::make_shared<Events>(std::move(events));
  want_writable_ = true;
  wake_ = loop_.after(Nanoseconds(0), [this] {
    if (emit(&Events::readable) && want_writable_) {
      want_writable_ = false;
      emit(&Events::writable);
    }
  });
}

// False: the stream was destroyed by its owner in the callback.
bool TlsStream::emit(std::move_only_function<void()> Events::* callback) {
  const std::weak_ptr<int> alive = alive_;
  const auto keep = events_;
  if (keep != nullptr && (*keep).*callback) ((*keep).*callback)();
  return !alive.expired();
}

bool TlsStream::feed_some() {
  std::array<std::byte, kChunk> chunk;
  const std::size_t got = lower_->read(chunk);
  engine_.feed(BytesView(chunk).first(got));
  return got > 0;
}

void TlsStream::flush() {
  while (!engine_.ciphertext().empty()) {
    const std::size_t took = lower_->write(engine_.ciphertext());
    engine_.consume_ciphertext(took);
    if (took == 0) return;
  }
  if ((finishing_ || engine_.state() == State::failed) && !lower_finished_) {
    lower_finished_ = true;
    lower_->finish();
  }
}

void TlsStream::advance_handshake() {
  while (engine_.state() == State::handshaking && feed_some()) flush();
  flush();
  if (engine_.state() != State::handshaking) end_handshake();
}

void TlsStream::end_handshake() {
  auto done = std::exchange(handshake_done_, nullptr);
  if (!done) return;
  if (engine_.state() == State::failed) {
    done(std::unexpected(Error{engine_.error()}));
  } else {
    done({});
  }
}

void TlsStream::on_lower_readable() {
  if (handshake_done_) return advance_handshake();
  if (engine_.state() == State::failed) {
    while (feed_some()) {
    }
    return;
  }
  emit(&Events::readable);
}

void TlsStream::on_lower_writable() {
  flush();
  if (want_writable_ && !handshake_done_ && engine_.ciphertext().empty()) {
    want_writable_ = false;
    emit(&Events::writable);
  }
}

void TlsStream::on_lower_closed(std::string reason) {
  lower_closed_ = true;
  lower_reason_ = std::move(reason);
  // What arrived can be read from below only now; the socket's buffer bounds it.
  if (handshake_done_) {
    const std::weak_ptr<int> alive = alive_;
    advance_handshake();
    if (alive.expired()) return;
  }
  while (feed_some()) {
  }
  if (auto done = std::exchange(handshake_done_, nullptr)) {
    return done(fail("{}", lower_reason_.empty()
                               ? "the peer ended the connection during the TLS handshake"
                               : lower_reason_));
  }
  emit(&Events::readable);  // its read() reports the end once all is read
}

std::size_t TlsStream::read(MutableBytes into) {
  std::size_t got = engine_.read(into);
  while (got == 0 && engine_.state() == State::open && feed_some()) got = engine_.read(into);
  flush();
  // What write() waited for went out just now: the lower stream has nothing more to tell.
  if (want_writable_ && engine_.ciphertext().empty()) {
    wake_ = loop_.after(Nanoseconds(0), [this] { on_lower_writable(); });
  }
  if (got == 0) report_end();
  return got;
}

// Asynchronously: the owner is inside read() now.
void TlsStream::report_end() {
  const bool over = engine_.state() != State::open || lower_closed_;
  if (!over || end_reported_ || events_ == nullptr) return;
  end_reported_ = true;
  std::string reason;
  if (engine_.state() == State::failed) {
    reason = engine_.error();
  } else if (engine_.state() == State::open) {
    reason = lower_reason_.empty() ? "the connection was cut" : lower_reason_;
  }
  closing_ = loop_.after(Nanoseconds(0), [this, reason = std::move(reason)] {
    const auto keep = events_;
    if (keep->closed) keep->closed(reason);
  });
}

std::size_t TlsStream::write(BytesView from) {
  std::size_t total = 0;
  while (total < from.size()) {
    const std::size_t took = engine_.write(from.subspan(total));
    total += took;
    flush();
    if (took == 0 || !engine_.ciphertext().empty()) break;
  }
  want_writable_ = total < from.size();
  return total;
}

void TlsStream::finish() {
  engine_.finish();
  finishing_ = true;
  flush();
}

}  // namespace godwit::session

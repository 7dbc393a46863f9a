#include "session/splice.hh"

namespace godwit::session {
namespace {

constexpr int kChunksPerTurn = 16;  // 1 MiB, then the loop's other work has its turn

}  // namespace

Splice::Splice(os::Loop& loop, std::unique_ptr<os::ByteStream> a, std::unique_ptr<os::ByteStream> b,
               std::move_only_function<void(BytesView)> seen,
               std::move_only_function<void(std::string)> ended)
    : loop_(loop),
      a_(std::move(a)),
      b_(std::move(b)),
      seen_(std::move(seen)),
      ended_(std::move(ended)),
      there_{.from = *a_, .to = *b_, .buffer = {}, .turn = {}},
      back_{.from = *b_, .to = *a_, .buffer = {}, .turn = {}} {
  there_.buffer.resize(kBuffer);
  back_.buffer.resize(kBuffer);
  start(there_, back_);
  start(back_, there_);
}

// `out` is the direction that reads from this stream, `in` the one that writes to it.
void Splice::start(Way& out, Way& in) {
  out.from.start({.readable = [this, &out] { pump(out); },
                  .writable = [this, &in] { pump(in); },
                  .closed = [this, &out](const std::string& reason) { on_closed(out, reason); }});
}

void Splice::pump(Way& way) {
  if (over_) return;
  for (int chunk = 0;; ++chunk) {
    if (chunk == kChunksPerTurn) {
      way.turn = loop_.after(Nanoseconds(0), [this, &way] { pump(way); });
      return;
    }
    if (way.held == 0) {
      way.at = 0;
      way.held = way.from.read(way.buffer);
      if (way.held == 0) break;
    }
    const std::size_t took = way.to.write(BytesView(way.buffer).subspan(way.at, way.held));
    seen_(BytesView(way.buffer).subspan(way.at, took));
    way.at += took;
    way.held -= took;
    if (way.held > 0) return;  // `writable` follows
  }
  if (!way.from_ended || way.finished) return;
  way.finished = true;
  way.to.finish();
  if (there_.finished && back_.finished) end("");
}

void Splice::on_closed(Way& out, const std::string& reason) {
  out.from_ended = true;
  pump(out);
  if (!reason.empty()) end(reason);
}

void Splice::end(const std::string& reason) {
  if (std::exchange(over_, true)) return;
  ending_ = loop_.after(Nanoseconds(0), [this, reason] {
    auto ended = std::move(ended_);
    ended(reason);
  });
}

}  // namespace godwit::session

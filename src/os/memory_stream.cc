#include "os/memory_stream.hh"

#include <array>
#include <deque>
#include <optional>

#include "base/check.hh"

namespace godwit::os {

struct MemoryLink::End {
  std::deque<std::byte> inbox;  // written by the other end, not yet read here
  std::shared_ptr<ByteStream::Events> events;
  bool taken = false;
  bool alive = false;
  bool wants_read = true;    // read() returned 0 since `readable` was last called
  bool wants_write = false;  // write() took less than it was given
  bool finished = false;     // sends no more
  bool at_end = false;       // met the end of the inbox after the peer finished
  bool told_closed = false;
};

struct MemoryLink::Shared {
  std::array<End, 2> ends;
  std::size_t capacity = 0;
  bool stalled = false;
  std::optional<std::string> cut;

  bool has_news(std::size_t self) const {
    const End& peer = ends[1 - self];
    return !stalled && (!ends[self].inbox.empty() || peer.finished);
  }
  bool step(std::size_t self);
};

class MemoryLink::Stream final : public ByteStream {
 public:
  Stream(std::shared_ptr<Shared> shared, std::size_t self)
      : shared_(std::move(shared)), self_(self) {
    CHECK(!mine().taken, "each end of a memory link can be taken once");
    mine().taken = mine().alive = true;
  }
  ~Stream() override {
    mine().alive = false;
    mine().finished = true;
    mine().events = nullptr;
  }

  void start(Events events) override {
    CHECK(mine().events == nullptr, "{} was started twice", peer());
    mine().events = std::make_shared<Events>(std::move(events));
  }

  std::size_t read(MutableBytes into) override {
    End& end = mine();
    const std::size_t count =
        shared_->cut || shared_->stalled ? 0 : std::min(into.size(), end.inbox.size());
    std::copy_n(end.inbox.begin(), count, into.begin());
    end.inbox.erase(end.inbox.begin(), end.inbox.begin() + static_cast<std::ptrdiff_t>(count));
    if (count == 0 && !into.empty()) {
      end.wants_read = true;
      end.at_end = shared_->has_news(self_) && end.inbox.empty();
    }
    return count;
  }

  std::size_t write(BytesView from) override {
    End& end = mine();
    End& peer_end = shared_->ends[1 - self_];
    CHECK(!end.finished, "write after finish");
    // As a socket does after a failure: swallow, so that a flush-then-destroy ends.
    if (shared_->cut || (peer_end.taken && !peer_end.alive)) return from.size();
    const std::size_t count = std::min(from.size(), shared_->capacity - peer_end.inbox.size());
    peer_end.inbox.insert(peer_end.inbox.end(), from.begin(),
                          from.begin() + static_cast<std::ptrdiff_t>(count));
    end.wants_write = count < from.size();
    return count;
  }

  void finish() override { mine().finished = true; }
  std::string peer() const override { return self_ == 0 ? "memory:b" : "memory:a"; }

 private:
  End& mine() const { return shared_->ends[self_]; }

  std::shared_ptr<Shared> shared_;
  std::size_t self_;
};

bool MemoryLink::Shared::step(std::size_t self) {
  End& end = ends[self];
  if (!end.alive || end.events == nullptr) return false;
  const auto events = end.events;  // a callback may destroy the stream
  if (cut) {
    if (std::exchange(end.told_closed, true)) return false;
    if (events->closed) events->closed(*cut);
    return true;
  }
  bool called = false;
  if (end.wants_read && !end.at_end && has_news(self)) {
    end.wants_read = false;
    called = true;
    if (events->readable) events->readable();
    if (!end.alive) return true;
  }
  const End& peer = ends[1 - self];
  if (end.wants_write && (peer.inbox.size() < capacity || (peer.taken && !peer.alive))) {
    end.wants_write = false;
    called = true;
    if (events->writable) events->writable();
    if (!end.alive) return true;
  }
  if (end.at_end && !std::exchange(end.told_closed, true)) {
    called = true;
    if (events->closed) events->closed({});
  }
  return called;
}

MemoryLink::MemoryLink(std::size_t capacity) : shared_(std::make_shared<Shared>()) {
  shared_->capacity = capacity;
}

MemoryLink::~MemoryLink() = default;

std::unique_ptr<ByteStream> MemoryLink::take_a() { return std::make_unique<Stream>(shared_, 0); }
std::unique_ptr<ByteStream> MemoryLink::take_b() { return std::make_unique<Stream>(shared_, 1); }

bool MemoryLink::step() {
  const bool first = shared_->step(0);
  return shared_->step(1) || first;
}

void MemoryLink::settle(int limit) {
  while (step()) CHECK(--limit > 0, "the two ends of a memory link never settle");
}

void MemoryLink::cut(std::string reason) {
  shared_->cut = std::move(reason);
  for (End& end : shared_->ends) end.inbox.clear();
}

void MemoryLink::stall(bool stalled) { shared_->stalled = stalled; }
std::size_t MemoryLink::in_flight_from_a() const { return shared_->ends[1].inbox.size(); }
std::size_t MemoryLink::in_flight_from_b() const { return shared_->ends[0].inbox.size(); }

}  // namespace godwit::os

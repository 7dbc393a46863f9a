#include "world.hh"

#include <algorithm>

#include "base/check.hh"
#include "wire/datagram.hh"

namespace godwit::sim {

using wire::PeerAddress;

// ---- hosts ----

PeerAddress Host::address() const {
  PeerAddress address;
  address.port = index_;
  return address;
}

void Host::start() {
  Dice seeds(world_.dice().word());
  const auto shards = static_cast<std::uint16_t>(seeds.between(1, world_.most_shards));
  // One stream of chance for all of them: receiver indices are to be theirs alone.
  const auto chance = std::make_shared<Dice>(seeds.word());
  engine_ = std::make_unique<Engines>(name_, *this, [chance] { return chance->word(); }, shards);
  components_ = std::make_unique<net::Patchbay>(
      [this](const PortId& port, std::span<const BytesView> frames, Instant at) {
        engine_->frames_from_port(port, frames, at);
      });
  ++incarnation_;
  tick_at_ = Instant::max();
}

void Host::stop() {
  touched_ = true;
  looped_ = looped();
  components_.reset();
  engine_.reset();
  ++incarnation_;
}

Instant Host::now() const { return world_.now() + ahead_; }

void Host::schedule_tick() {
  touched_ = true;
  if (!engine_) return;
  components_->run(now());
  if (world_.watches_timers) {
    const std::string overlooked = engine_->overlooked();
    CHECK(overlooked.empty(), "nobody ticks {} in time", overlooked);
  }
  const Instant next = std::min(engine_->next_tick(), components_->next_tick());
  if (next == Instant::max()) return;
  const Instant due = std::max(next - ahead_, world_.now());
  if (due >= tick_at_) return;
  tick_at_ = due;
  world_.after(due - world_.now(), [this, due, incarnation = incarnation_] {
    if (incarnation != incarnation_ || tick_at_ != due) return;
    tick_at_ = Instant::max();
    engine_->tick(now());
    components_->tick(now());
    schedule_tick();
  });
}

void Host::to_port(PortId port, std::span<const BytesView> frames) {
  if (components_->take(port, frames)) return;
  for (const BytesView& frame : frames) world_.on_frame(name_, port, frame);
}

void Host::to_path(const PeerAddress& address, const wire::DatagramBatch& batch) {
  for (const wire::DatagramRun& run : batch.runs()) relay(address, run.bytes, run.segment_size);
}

void Host::relay(const PeerAddress& address, BytesView run, std::uint16_t segment_size) {
  for (std::size_t at = 0; at < run.size(); at += segment_size) {
    const std::size_t size = std::min<std::size_t>(segment_size, run.size() - at);
    world_.send_datagram(name_, address, run.subspan(at, size));
  }
}

void Host::to_control(const std::string& peer, BytesView message) {
  world_.send_control(name_, peer, message);
}

void Host::event(const wire::Event& event) {
  // Not from inside the engine's call.
  world_.after({}, [this, event] { world_.on_event(name_, event); });
}

// ---- the world ----

World::World(std::uint64_t seed, Weather weather, std::size_t hosts)
    : dice_(seed), weather_(weather) {
  for (std::size_t i = 0; i < hosts; ++i) {
    const std::string name = fmt::format("h{}", i);
    names_.push_back(name);
    hosts_[name] = std::make_unique<Host>(*this, name, static_cast<std::uint16_t>(i));
    all_.push_back(hosts_[name].get());
  }
  for (const std::string& a : names_) {
    for (const std::string& b : names_) {
      if (a >= b) continue;
      const bool near = dice_.happens(0.3);
      const Nanoseconds delay = near ? dice_.between(std::chrono::microseconds(50), milliseconds(1))
                                     : dice_.between(milliseconds(2), milliseconds(40));
      paths_[{a, b}].delay = paths_[{b, a}].delay = delay;
    }
  }
}

void World::run_until(Instant end, const Task& check) {
  while (!is_over && !queue_.empty() && queue_.top().at <= end) {
    const Event event = queue_.top();
    queue_.pop();
    now_ = event.at;
    event.task();
    check();
  }
  now_ = end;
}

void World::send_datagram(const std::string& from, const PeerAddress& to, BytesView bytes) {
  const std::string& target = names_.at(to.port);
  ++datagrams;
  const auto header = wire::read_header(bytes);
  CHECK(header, "an engine sent what is not a datagram");
  // Few hosts, and no run has 2^26 datagrams.
  const std::uint64_t nonce =
      std::uint64_t{header->receiver_index} << 32 | std::uint64_t{to.port} << 26 | header->counter;
  // What a relay got twice it forwards twice.
  const std::uint64_t content = std::hash<std::string_view>{}(as_text(bytes));
  if (nonces_.try_emplace(nonce, content).first->second != content) nonce_reused = true;
  if (bytes.size() > kPathBytes) return;  // a probe: nothing else is larger than was proven
  if (paths_.at({from, target}).is_cut || dice_.happens(weather_.loss)) {
    if (bytes.size() >= kMinFrame) ++lost_large;
    return;
  }
  deliver_datagram(from, target, to_bytes(bytes));
  if (dice_.happens(weather_.duplicates)) deliver_datagram(from, target, to_bytes(bytes));
}

void World::deliver_datagram(const std::string& from, const std::string& to, Bytes bytes) {
  Path& path = paths_.at({from, to});
  Instant due = now_ + path.delay;
  if (weather_.reorders) {
    due += dice_.between(Nanoseconds{}, path.delay / 2);
  } else {
    due = path.last = std::max(due + dice_.between(Nanoseconds{}, path.delay / 20), path.last);
  }
  after(due - now_, [this, from, to, bytes = std::move(bytes)]() mutable {
    Host& target = host(to);
    if (!target.engine()) return;
    target.engine()->datagrams(host(from).address(), bytes,
                               static_cast<std::uint16_t>(bytes.size()), target.now());
    target.schedule_tick();
  });
}

void World::send_control(const std::string& from, const std::string& to, BytesView message) {
  send(from, to, [this, from, to, bytes = to_bytes(message)] {
    host(to).engine()->control(from, bytes, host(to).now());
    host(to).schedule_tick();
  });
}

void World::send(const std::string& from, const std::string& to, Task message) {
  const std::uint64_t number = session(from, to).number;
  if (number == 0) return;
  Task deliver = [this, from, to, number, message = std::move(message)] {
    if (session(from, to).number == number && host(to).engine()) message();
  };
  Path& path = paths_.at({from, to});
  if (path.is_cut) return path.stalled.push_back(std::move(deliver));
  Instant& last = from < to ? session(from, to).last_ab : session(from, to).last_ba;
  Nanoseconds delay = path.delay;
  if (dice_.happens(weather_.loss)) delay += milliseconds(200);  // TCP sends it again
  const Instant due = last = std::max(now_ + delay, last);
  after(due - now_, deliver);
  if (dice_.happens(weather_.duplicates)) {
    after(due - now_ + dice_.between(Nanoseconds{}, milliseconds(100)), deliver);
  }
}

void World::connect(const std::string& a, const std::string& b) {
  if (!host(a).engine() || !host(b).engine()) return;
  Session& made = session(a, b);
  if (made.number != 0) return;
  made = {next_session_++, now_, now_};
  std::array<std::byte, 32> secret{};
  for (std::byte& byte : secret) byte = static_cast<std::byte>(dice_.word());
  for (const auto& [self, other] : {std::pair{a, b}, std::pair{b, a}}) {
    const PeerAddress address = host(other).address();
    host(self).engine()->session_up(other, secret, self < other, {&address, 1}, host(self).now());
    host(self).schedule_tick();
  }
  on_session(a, b);
  on_session(b, a);
}

void World::cut(const std::string& a, const std::string& b) {
  Session& lost = session(a, b);
  if (lost.number == 0) return;
  lost.number = 0;
  for (const auto& [self, other] : {std::pair{a, b}, std::pair{b, a}}) {
    if (host(self).engine()) host(self).engine()->session_down(other, host(self).now());
  }
}

void World::cut_path(const std::string& a, const std::string& b, bool is_cut) {
  paths_.at({a, b}).is_cut = paths_.at({b, a}).is_cut = is_cut;
}

void World::cut_link(const std::string& a, const std::string& b) {
  cut_path(a, b, true);
  const std::uint64_t cuts = ++paths_.at({a, b}).cuts;
  after(kDeadAfter, [this, a, b, cuts] {
    if (paths_.at({a, b}).cuts == cuts && is_cut(a, b)) cut(a, b);
  });
}

void World::heal_link(const std::string& a, const std::string& b) {
  if (!is_cut(a, b)) return;
  cut_path(a, b, false);
  for (const auto& direction : {std::pair{a, b}, std::pair{b, a}}) {
    Path& path = paths_.at(direction);
    for (Task& message : std::exchange(path.stalled, {})) after(path.delay, std::move(message));
  }
  // The dial's backoff, which a relay or the other side's dial may shorten.
  after(dice_.between(milliseconds(50), seconds(5)), [this, a, b] {
    if (!is_cut(a, b)) connect(a, b);
  });
}

void World::stop_agent(const std::string& name) {
  host(name).stop();
  for (const std::string& other : names_) {
    if (other != name) cut(name, other);
  }
}

void World::start_agent(const std::string& name) {
  host(name).start();
  for (const std::string& other : names_) {
    if (other == name) continue;
    after(dice_.between(milliseconds(1), milliseconds(200)), [this, name, other] {
      if (!is_cut(name, other)) connect(name, other);
    });
  }
}

}  // namespace godwit::sim

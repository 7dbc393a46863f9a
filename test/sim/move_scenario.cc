#include "move_scenario.hh"

#include <algorithm>

#include "base/check.hh"
#include "wire/datagram.hh"

namespace godwit::sim {
namespace {

constexpr Nanoseconds kTraffic = milliseconds(1500);

Weather draw_weather(std::uint64_t seed) {
  Dice dice(seed * 7919 + 1);
  Weather weather;
  if (dice.happens(0.4)) weather.loss = 0.001 * static_cast<double>(dice.between(1, 200));
  if (dice.happens(0.5)) weather.duplicates = 0.1;
  weather.reorders = dice.happens(0.3);
  weather.cuts = dice.happens(0.3);
  weather.restarts = dice.happens(0.3);
  return weather;
}

template <class AnId>
AnId some_id(Dice& dice) {
  AnId id;
  for (std::byte& byte : id.bytes) byte = static_cast<std::byte>(dice.word());
  return id;
}

}  // namespace

MoveScenario::MoveScenario(std::uint64_t seed, bool is_traced)
    : dice_(seed * 31 + 5), world_(seed, draw_weather(seed), 4), wire_(some_id<WireId>(dice_)) {
  world_.is_traced = is_traced;
  world_.on_frame = [this](const std::string& host, PortId port, BytesView frame) {
    arrived(host, port, frame);
  };
  world_.on_event = [this](const std::string& host, const wire::Event& what) { event(host, what); };
  for (std::uint8_t i = 0; i < 2; ++i) {
    guests_[i].number = i;
    guests_[i].port = some_id<PortId>(dice_);
    guests_[i].host = world_.names()[dice_.between(0, world_.names().size() - 1)];
  }
}

template <class Call>
void MoveScenario::at(const std::string& host, Call call) {
  if (Engines* found = engine(host)) {
    call(*found);
    world_.host(host).schedule_tick();
  }
}

wire::WireConfig MoveScenario::wire_of(const Guest& guest, const std::string& host) {
  const auto& [peer_host, peer_epoch] = guest.seen.at(host);
  return {wire_, guest.port, other(guest).port, peer_epoch, peer_host};
}

// What an agent does for a guest that its journal says is its own.
void MoveScenario::install(Guest& guest) {
  at(guest.host, [&](Engines& engine) {
    engine.add_port({guest.port, guest.epoch, "default"}, world_.now());
    engine.connect(wire_of(guest, guest.host), world_.now());
  });
}

// ---- guests ----

void MoveScenario::send_some(Guest& guest) {
  if (guest.running && traffic_) {
    const std::uint64_t frames = dice_.happens(0.1) ? dice_.between(2, 8) : 1;
    for (std::uint64_t i = 0; i < frames; ++i) {
      // Each in its own datagrams, so that a dropped datagram is at most one frame; none cut into
      // pieces smaller than kMinFrame, also on a path of 1200 B.
      const std::size_t size =
          dice_.happens(0.1) ? dice_.between(1600, 4000) : dice_.between(World::kMinFrame, 1000);
      Bytes frame(size);
      to_big_endian(++guest.sent, frame.data() + wire::kMinFrameBytes);
      const BytesView view = frame;
      if (!engine(guest.host)) continue;
      at(guest.host,
         [&](Engines& engine) { engine.frames_from_port(guest.port, {&view, 1}, world_.now()); });
    }
  }
  if (traffic_) {
    world_.after(dice_.between(milliseconds(1), milliseconds(28)),
                 [this, &guest] { send_some(guest); });
  }
}

void MoveScenario::arrived(const std::string& host, PortId port, BytesView frame) {
  Guest& guest = guest_of(port);
  if (guest.host != host) {
    return fail(
        fmt::format("frame for guest {} at {}, which is at {}", guest.number, host, guest.host));
  }
  if (!guest.running) return fail(fmt::format("frame for guest {} in its pause", guest.number));
  guest.tap.push_back(to_bytes(frame));
  if (guest.tap.size() == 1) {
    world_.after(dice_.between(Nanoseconds{}, milliseconds(2)),
                 [this, &guest] { take_some(guest); });
  }
}

void MoveScenario::take_some(Guest& guest) {
  if (!guest.running) return;
  while (!guest.tap.empty()) {
    const std::uint64_t sequence =
        from_big_endian<std::uint64_t>(guest.tap.front().data() + wire::kMinFrameBytes);
    guest.tap.pop_front();
    if (!guest.received.insert(sequence).second) {
      return fail(fmt::format("guest {} got frame {} twice", guest.number, sequence));
    }
    if (sequence < guest.last) {
      ++guest.disordered;
      world_.trace("guest {} at {}: frame {} after {}", guest.number, guest.host, sequence,
                   guest.last);
    }
    guest.last = std::max(guest.last, sequence);
  }
}

void MoveScenario::event(const std::string& host, const wire::Event& what) {
  Guest& guest = guest_of(what.port);
  world_.trace("{}: {} guest {} epoch {} {}", host, wire::to_text(what.kind), guest.number,
               what.epoch, what.host);
  switch (what.kind) {
    case wire::EventKind::prepared:
      if (guest.step == Step::preparing && what.epoch == guest.highest && host == guest.target) {
        guest.step = Step::paused;
        world_.after(dice_.between(Nanoseconds{}, milliseconds(30)),
                     [this, &guest, attempt = guest.attempt] {
                       if (attempt == guest.attempt) pause(guest);
                     });
      }
      break;
    case wire::EventKind::peer_moved:
      if (guest.seen[host].second < what.epoch) guest.seen[host] = {what.host, what.epoch};
      break;
    case wire::EventKind::peer_unknown:  // agents ask each other who has the port
      if (guest.host == host) {
        guest.seen[host] = {other(guest).host, other(guest).epoch};
        at(host, [&](Engines& engine) { engine.connect(wire_of(guest, host), world_.now()); });
      }
      break;
    case wire::EventKind::overflow:
      fail("a held buffer overflowed");
      break;
    case wire::EventKind::superseded:
      fail(fmt::format("guest {} superseded", guest.number));
      break;
    default:
      break;
  }
}

// ---- moves ----

void MoveScenario::plan_move(Guest& guest) {
  world_.after(dice_.between(Nanoseconds{}, milliseconds(400)),
               [this, &guest] { begin_move(guest); });
}

void MoveScenario::begin_move(Guest& guest) {
  if (!moving_ || guest.step != Step::idle) return;
  guest.target = world_.names()[dice_.between(0, world_.names().size() - 1)];
  if (guest.target == guest.host || !engine(guest.host) || !engine(guest.target)) {
    return plan_move(guest);
  }
  guest.step = Step::preparing;
  world_.trace("guest {} from {} to {}", guest.number, guest.host, guest.target);
  const std::uint64_t attempt = ++guest.attempt;
  ++guest.highest;
  const Nanoseconds skew = dice_.between(Nanoseconds{}, milliseconds(20));
  const bool target_first = dice_.happens(0.5);
  world_.after(target_first ? skew : Nanoseconds{}, [this, &guest, attempt] {
    if (attempt != guest.attempt) return;
    at(guest.host, [&](Engines& engine) {
      engine.offer_move(guest.port, guest.target, guest.highest, world_.now());
    });
  });
  world_.after(target_first ? Nanoseconds{} : skew, [this, &guest, attempt] {
    if (attempt != guest.attempt) return;
    const wire::WireConfig wire = wire_of(guest, guest.host);
    at(guest.target, [&](Engines& engine) {
      engine.prepare({guest.port, guest.highest, "default"}, guest.host, {&wire, 1}, world_.now());
    });
  });
  world_.after(milliseconds(2000), [this, &guest, attempt] {
    if (attempt != guest.attempt || guest.step != Step::preparing) return;
    if (world_.weather().is_calm()) fail("a move was not prepared within 2 s");
    abort(guest);
  });
}

void MoveScenario::pause(Guest& guest) {
  if (guest.step != Step::paused) return;
  if (!engine(guest.host)) return abort(guest);
  guest.running = false;
  world_.trace("guest {} paused at {} after frame {}", guest.number, guest.host, guest.sent);
  std::vector<BytesView> undelivered(guest.tap.begin(), guest.tap.end());
  at(guest.host, [&](Engines& engine) { engine.pause(guest.port, undelivered, world_.now()); });
  guest.tap.clear();
  guest.step = Step::deciding;
  // What QEMU's state and the commit take: at least one way between the hosts, by then.
  world_.after(dice_.between(milliseconds(41), milliseconds(250)),
               [this, &guest, attempt = guest.attempt] {
                 if (attempt == guest.attempt) decide(guest);
               });
}

void MoveScenario::decide(Guest& guest) {
  if (!engine(guest.host) || !engine(guest.target) || dice_.happens(0.2)) return abort(guest);
  commit(guest);
}

void MoveScenario::commit(Guest& guest) {
  ++outcome_.moves;
  world_.trace("guest {} runs at {}", guest.number, guest.target);
  const std::string from = guest.host;
  guest.host = guest.target;
  guest.epoch = guest.highest;
  if (guest.seen[guest.host].second < guest.seen[from].second) {
    guest.seen[guest.host] = guest.seen[from];  // in the plan of the move
  }
  guest.running = true;
  guest.step = Step::draining;
  at(guest.host, [&](Engines& engine) { engine.run(guest.port, world_.now()); });
  // The word that the target runs.
  world_.after(dice_.between(milliseconds(1), milliseconds(80)),
               [this, &guest, from, attempt = guest.attempt] {
                 at(from, [&](Engines& engine) { engine.release(guest.port, world_.now()); });
                 if (attempt != guest.attempt) return;
                 guest.step = Step::idle;
                 plan_move(guest);
               });
}

// Before the commit: the source goes on, the target lets go when it hears of it.
void MoveScenario::abort(Guest& guest) {
  ++outcome_.aborts;
  world_.trace("guest {} goes on at {}", guest.number, guest.host);
  guest.step = Step::idle;
  const std::string target = guest.target;
  const Epoch burned = guest.highest;
  ++guest.attempt;
  guest.running = true;
  at(guest.host, [&](Engines& engine) { engine.resume(guest.port, world_.now()); });
  world_.after(dice_.between(milliseconds(1), milliseconds(60)), [this, &guest, target, burned] {
    at(target, [&](Engines& engine) {
      const auto stats = engine.port_stats(guest.port);
      if (stats && stats->id.epoch == burned) engine.discard(guest.port, world_.now());
    });
    plan_move(guest);
  });
}

// ---- trouble ----

void MoveScenario::plan_trouble() {
  const auto& names = world_.names();
  const auto some_host = [this, &names] { return names[dice_.between(0, names.size() - 1)]; };
  if (world_.weather().cuts && moving_) {
    const std::string a = some_host(), b = some_host();
    if (a != b) {
      world_.cut(a, b);
      world_.cut_path(a, b, dice_.happens(0.5));
      // Sometimes for so long that another way is taken, through a third host.
      const auto most = dice_.happens(0.2) ? milliseconds(2500) : milliseconds(600);
      world_.after(dice_.between(milliseconds(1), most), [this, a, b] {
        world_.cut_path(a, b, false);
        world_.connect(a, b);
      });
    }
  }
  if (world_.weather().restarts && moving_ && dice_.happens(0.3)) restart(some_host());
  if (moving_) {
    world_.after(dice_.between(milliseconds(20), milliseconds(600)), [this] { plan_trouble(); });
  }
}

// The agent dies; guests outlive it. It comes back with what its journal says.
void MoveScenario::restart(const std::string& host) {
  if (!engine(host)) return;
  ++outcome_.restarts;
  world_.stop_agent(host);
  world_.after(dice_.between(milliseconds(1), milliseconds(500)), [this, host] {
    world_.start_agent(host);
    for (Guest& guest : guests_) {
      // A move of which either agent forgot its part is off, unless it was committed.
      if (guest.step != Step::idle && guest.step != Step::draining &&
          (guest.host == host || guest.target == host)) {
        if (guest.host == host) install(guest);
        abort(guest);
      } else if (guest.host == host) {
        install(guest);
      }
    }
  });
}

// ---- properties ----

void MoveScenario::fail(std::string text) {
  if (outcome_.failure.empty()) {
    outcome_.failure = fmt::format("at {:.3f} ms: {}", to_ms(world_.now() - World::kBegin), text);
    world_.trace("{}", text);
  }
}

void MoveScenario::check() {
  bool touched = false;
  for (Host* host : world_.hosts()) touched |= host->take_touched();
  if (!touched) return;
  if (world_.nonce_reused) fail("a nonce was used twice");
  for (const Guest& guest : guests_) {
    int live = 0;
    for (Host* host : world_.hosts()) {
      live += host->engine() && host->engine()->live_epoch(guest.port);
    }
    if (live > 1) fail(fmt::format("guest {} is live at {} hosts", guest.number, live));
  }
}

MoveOutcome MoveScenario::run() {
  const Weather weather = world_.weather();
  for (const std::string& name : world_.names()) world_.host(name).start();
  for (const std::string& a : world_.names()) {
    for (const std::string& b : world_.names()) {
      if (a < b) world_.connect(a, b);
    }
  }
  for (Guest& guest : guests_) {
    guest.seen[guest.host] = {other(guest).host, other(guest).epoch};
    install(guest);
  }
  const auto check_all = [this] { check(); };
  world_.run_until(world_.now() + milliseconds(200), check_all);  // keys
  for (Guest& guest : guests_) {
    send_some(guest);
    plan_move(guest);
  }
  plan_trouble();
  world_.run_until(world_.now() + kTraffic, check_all);
  moving_ = false;
  world_.run_until(world_.now() + milliseconds(300), check_all);
  traffic_ = false;
  world_.run_until(world_.now() + seconds(3), check_all);  // moves end, sessions and agents return
  world_.calm();
  world_.run_until(world_.now() + seconds(3), check_all);
  const std::uint64_t before[2] = {guests_[0].sent, guests_[1].sent};
  traffic_ = true;
  for (Guest& guest : guests_) send_some(guest);
  world_.run_until(world_.now() + milliseconds(100), check_all);
  traffic_ = false;
  world_.run_until(world_.now() + seconds(1), check_all);

  for (Guest& guest : guests_) {
    const Guest& from = other(guest);
    outcome_.sent += from.sent;
    outcome_.received += guest.received.size();
    const std::uint64_t lost = from.sent - guest.received.size();
    if (!guest.running) fail(fmt::format("guest {} was left in its pause", guest.number));
    // Whatever happened before, in calm weather the wire works.
    for (std::uint64_t i = before[from.number] + 1; i <= from.sent; ++i) {
      if (!guest.received.contains(i)) {
        fail(fmt::format("frame {} to guest {} was lost in calm weather", i, guest.number));
      }
    }
    if (weather.restarts) continue;
    if (weather.is_calm()) {
      const auto stats = engine(guest.host)->port_stats(guest.port);
      if (stats->waits_expired > 0) fail(fmt::format("guest {} waited in vain", guest.number));
    }
    if (lost > world_.lost_large) {
      fail(fmt::format("{} frames to guest {} are missing, {} datagrams were dropped", lost,
                       guest.number, world_.lost_large));
    }
    // (A detour whose session is cut may get its keys later than anyone waits for it.)
    if (weather.is_calm() && guest.disordered > 0) {
      fail(fmt::format("{} frames to guest {} out of order", guest.disordered, guest.number));
    }
  }
  return outcome_;
}

}  // namespace godwit::sim

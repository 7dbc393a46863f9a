#include "cloud.hh"

#include <algorithm>

namespace godwit::sim {
namespace {

template <class AnId>
AnId some_id(Dice& dice) {
  AnId id;
  for (std::byte& byte : id.bytes) byte = static_cast<std::byte>(dice.word());
  return id;
}

}  // namespace

Cloud::Cloud(std::uint64_t seed, Weather weather, std::size_t hosts)
    : world_(seed, weather, hosts) {
  for (const std::string& name : world_.names()) {
    hosts_[name].disk = std::make_shared<store::MemoryDisk>();
  }
  world_.on_frame = [this](const std::string& host, PortId port, BytesView frame) {
    arrived(host, port, frame);
  };
  world_.on_event = [this](const std::string& host, const wire::Event& event) {
    if (Agent* found = agent(host)) found->wire_event(event);
  };
  world_.on_session = [this](const std::string& host, const std::string& peer) {
    if (Agent* found = agent(host)) found->session_up(peer);
  };
}

Agent* Cloud::agent(const std::string& host) {
  Agent* found = hosts_.at(host).agent.get();
  return found && found->is_alive() ? found : nullptr;
}

Guest& Cloud::guest_of(const PortId& port) {
  const auto found =
      std::ranges::find_if(guests_, [&](const auto& entry) { return entry.second.port == port; });
  CHECK(found != guests_.end());
  return found->second;
}

// ---- what happens to it ----

void Cloud::boot() {
  for (const std::string& name : world_.names()) start_agent(name);
  run_for(seconds(1));  // sessions, keys
}

void Cloud::add_guest(const std::string& name, const std::string& host, const std::string& peer) {
  Guest& guest = guests_[name];
  guest.name = name;
  guest.peer = peer;
  guest.port = some_id<PortId>(dice());
  guest.wire = some_id<WireId>(dice());
  const std::uint64_t process = spawn({.host = host, .guest = name});
  store::Changes changes;
  const std::string port = guest.port.text();
  changes[{"vm", name}] = {{"process", process}, {"arriving", ""}, {"stopped", false}};
  changes[{"port", port}] = {{"id", port}, {"epoch", 1}, {"vm", name}};
  if (const auto other = guests_.find(peer); other != guests_.end()) {
    guest.wire = other->second.wire;
    const std::string far = other->second.port.text();
    std::string far_host;
    for (const auto& [id, qemu] : processes_) {
      if (qemu.guest == peer) far_host = qemu.host;
    }
    const auto end = [&](const std::string& from, const std::string& to, const std::string& at) {
      return nlohmann::json{{"id", guest.wire.text()},
                            {"local", from},
                            {"remote", to},
                            {"remote_host", at},
                            {"remote_epoch", 1}};
    };
    changes[{"wire", port}] = end(port, far, far_host);
    CHECK(disk(far_host).write({{{"wire", far}, end(far, port, host)}}));
  }
  CHECK(disk(host).write(changes));
  resume(process);
}

void Cloud::kill_agent(const std::string& host) {
  Machine& machine = hosts_.at(host);
  if (!agent(host)) return;
  world_.trace("{}: the agent is killed", host);
  machine.agent->die();
  machine.dead.push_back(std::move(machine.agent));
  world_.stop_agent(host);
  // QEMU ends when the stream breaks that it loads.
  for (auto& [number, qemu] : processes_) {
    if (qemu.host == host && qemu.incoming && !qemu.loaded) kill(number);
  }
}

void Cloud::start_agent(const std::string& host) {
  Machine& machine = hosts_.at(host);
  if (agent(host)) return;
  world_.trace("{}: the agent starts", host);
  world_.start_agent(host);
  machine.agent = std::make_unique<Agent>(*this, host);
  machine.agent->start();
}

bool Cloud::kill_qemu(const std::string& host, const std::string& guest) {
  bool any = false;
  for (auto& [number, qemu] : processes_) {
    if (!qemu.alive || qemu.host != host || qemu.guest != guest) continue;
    strike(number);
    any = true;
  }
  return any;
}

void Cloud::power_off(const std::string& host) {
  world_.trace("{}: the power is lost", host);
  kill_agent(host);
  for (auto& [number, qemu] : processes_) {
    if (qemu.host == host) strike(number);
  }
}

void Cloud::strike(std::uint64_t number) {
  const Qemu* qemu = process(number);
  if (!qemu) return;
  Guest& guest = guests_.at(qemu->guest);
  guest.was_killed |= qemu->memory == guest.history;
  kill(number);
}

void Cloud::run_for(Nanoseconds time) {
  world_.run_until(world_.now() + time, [this] { check(); });
}

// ---- processes ----

std::uint64_t Cloud::spawn(Qemu qemu) {
  processes_[next_process_] = std::move(qemu);
  return next_process_++;
}

Qemu* Cloud::process(std::uint64_t number) {
  const auto found = processes_.find(number);
  return found == processes_.end() || !found->second.alive ? nullptr : &found->second;
}

void Cloud::kill(std::uint64_t number) {
  Qemu* qemu = process(number);
  if (!qemu) return;
  pause(number);
  qemu->alive = false;
  world_.trace("{}: the QEMU of {} ends", qemu->host, qemu->guest);
  world_.after(dice().between(std::chrono::microseconds(200), milliseconds(20)),
               [this, host = qemu->host, number] {
                 if (Agent* found = agent(host)) found->process_ended(number);
               });
}

void Cloud::resume(std::uint64_t number) {
  Qemu* qemu = process(number);
  if (!qemu || qemu->running) return;
  Guest& guest = guests_.at(qemu->guest);
  if (guest.runs_at) {
    return fail(fmt::format("{} runs at {} and at {}", guest.name, *guest.runs_at, qemu->host));
  }
  if ((qemu->incoming && !qemu->loaded) || qemu->memory != guest.history) {
    return fail(fmt::format("{} runs at {} with old memory", guest.name, qemu->host));
  }
  world_.trace("{}: {} runs", qemu->host, guest.name);
  qemu->running = true;
  if (guest.history > 0) {
    guest.longest_stand = std::max(guest.longest_stand, world_.now() - guest.stood_since);
  }
  guest.runs_at = qemu->host;
  qemu->memory = ++guest.history;
}

void Cloud::pause(std::uint64_t number) {
  Qemu* qemu = process(number);
  if (!qemu || !qemu->running) return;
  world_.trace("{}: {} stands", qemu->host, qemu->guest);
  qemu->running = false;
  Guest& guest = guests_.at(qemu->guest);
  guest.runs_at.reset();
  guest.stood_since = world_.now();
}

bool Cloud::is_lost(const std::string& name) const {
  const Guest& guest = guests_.at(name);
  return std::ranges::none_of(processes_, [&](const auto& entry) {
    const Qemu& qemu = entry.second;
    return qemu.guest == name && qemu.alive && qemu.memory == guest.history &&
           (!qemu.incoming || qemu.loaded);
  });
}

std::size_t Cloud::processes_of(const std::string& guest) const {
  return static_cast<std::size_t>(std::ranges::count_if(processes_, [&](const auto& entry) {
    return entry.second.alive && entry.second.guest == guest;
  }));
}

// ---- traffic ----

// A guest's frames carry a number and its history's, so that what another run of it sent is told
// apart.
void Cloud::send_frame(const std::string& name) {
  Guest& guest = guests_.at(name);
  Engines* engine = guest.runs_at ? world_.host(*guest.runs_at).engine() : nullptr;
  if (!engine) return;
  Bytes frame(wire::kMinFrameBytes + sizeof(std::uint64_t));
  to_big_endian(++guest.sent, frame.data() + wire::kMinFrameBytes);
  const BytesView view = frame;
  engine->frames_from_port(guest.port, {&view, 1}, world_.host(*guest.runs_at).now());
  world_.host(*guest.runs_at).schedule_tick();
}

void Cloud::arrived(const std::string& host, PortId port, BytesView frame) {
  Guest& guest = guest_of(port);
  if (guest.runs_at != host) return;  // a frame for one that stands, or has left
  const auto number = from_big_endian<std::uint64_t>(frame.data() + wire::kMinFrameBytes);
  if (!guest.received.insert(number).second) {
    fail(fmt::format("{} got frame {} twice", guest.name, number));
  }
}

// ---- laws ----

void Cloud::fail(std::string text) {
  if (!failure_.empty()) return;
  failure_ = fmt::format("at {:.3f} ms: {}", to_ms(world_.now() - World::kBegin), text);
  world_.trace("{}", text);
}

// Two instances and old memory are seen when a guest is made to run.
void Cloud::check() {
  if (world_.nonce_reused) fail("a nonce was used twice");
}

}  // namespace godwit::sim

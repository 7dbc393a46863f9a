#include "agent/wire_thread.hh"

#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "base/result.hh"
#include "os/netlink.hh"
#include "os/random.hh"

namespace godwit::agent {
namespace {

// Frames per call of the engine: enough to fill a UDP_SEGMENT run with small ones.
constexpr std::size_t kFramesPerBatch = 32;
// Batches of one TAP before the others get their turn.
constexpr int kBatchesPerWakeup = 4;
constexpr int kReceivesPerWakeup = 8;
// Sealed datagrams that wait for the socket: 4 MiB is 33 ms at 1 Gbit/s.
constexpr std::size_t kMaxUnsentBytes = 4 << 20;
// Frames that come between plug() and pause(): some milliseconds, or until the move's bound if
// QEMU's monitor hangs. As much as a held port keeps.
constexpr std::size_t kMaxLateBytes = 64 << 20;

std::uint64_t random_number() {
  std::array<std::byte, 8> bytes{};
  os::fill_random(bytes);
  return from_big_endian<std::uint64_t>(bytes.data());
}

wire::Shard as_sibling(wire::Shard shard, wire::Siblings& siblings) {
  if (shard.count > 1) shard.siblings = &siblings;
  return shard;
}

// Of what the kernel kept for a reader, since the device was made.
os::TapPair::Lost lost_by(const PortDevice& device) {
  try {
    if (const auto* pair = std::get_if<std::shared_ptr<os::TapPair>>(&device)) {
      return (*pair)->lost();
    }
    const auto& tap = *std::get<std::shared_ptr<os::Tap>>(device);
    return {.to_agent = os::Netlink().dropped(tap.name()), .to_guest = 0};
  } catch (const SetupError&) {  // no descriptor for netlink: a count is not worth an end
    return {};
  }
}

}  // namespace

wire::PeerAddress to_peer_address(const os::Endpoint& endpoint) {
  wire::PeerAddress address{.port = endpoint.port, .scope = endpoint.scope};
  std::size_t at = 0;
  if (!endpoint.is_ipv6) {
    address.address[10] = address.address[11] = std::byte{0xff};
    at = 12;
  }
  for (std::size_t i = 0; at + i < 16; ++i) {
    address.address[at + i] = static_cast<std::byte>(endpoint.address[i]);
  }
  return address;
}

os::Endpoint to_endpoint(const wire::PeerAddress& address) {
  static constexpr std::array<std::byte, 12> kMapped = {
      std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0},    std::byte{0},
      std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0}, std::byte{0xff}, std::byte{0xff}};
  os::Endpoint endpoint{.port = address.port, .scope = address.scope};
  const bool is_ipv4 = std::equal(kMapped.begin(), kMapped.end(), address.address.begin());
  endpoint.is_ipv6 = !is_ipv4;
  const std::size_t at = is_ipv4 ? 12 : 0;
  for (std::size_t i = 0; at + i < 16; ++i) {
    endpoint.address[i] = std::to_integer<std::uint8_t>(address.address[at + i]);
  }
  return endpoint;
}

os::Tap& WireThread::Attached::tap() {
  if (auto* pair = std::get_if<std::shared_ptr<os::TapPair>>(&device)) return (*pair)->agent_side();
  return *std::get<std::shared_ptr<os::Tap>>(device);
}

WireThread::WireThread(os::Loop& control, const std::string& self, const wire::Limits& limits,
                       Handlers handlers, wire::Shard shard)
    : control_(control),
      handlers_(std::move(handlers)),
      index_(shard.index),
      engine_(self, *this, random_number, limits, as_sibling(shard, *this)),
      components_([this](const PortId& port, std::span<const BytesView> frames, Instant now) {
        from_component(port, frames, now);
      }),
      frame_buffers_(kFramesPerBatch, Bytes(os::kMaxFrameBytes)),
      thread_([this] {
        id_ = ::gettid();
        priority_.emplace(loop_.now());  // what waits for it may be lost, other work is only late
        loop_.run();
      }) {}

WireThread::~WireThread() { end(); }

void WireThread::end() {
  if (!thread_.joinable()) return;
  loop_.stop();
  thread_.join();
}

Nanoseconds WireThread::cpu_time() {
  clockid_t clock{};
  timespec time{};
  if (::pthread_getcpuclockid(thread_.native_handle(), &clock) != 0) return {};
  ::clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

Nanoseconds WireThread::working_time() { return cpu_time() + os::waited_for_cpu(id_); }

void WireThread::post(std::move_only_function<void(Instant)> work) {
  loop_.post([this, work = std::move(work)]() mutable {
    work(loop_.now());
    settle();
  });
}

void WireThread::settle() {
  components_.run(loop_.now());
  send_crossings();
  const Instant due = std::min(engine_.next_tick(), components_.next_tick());
  if (due == armed_for_) return;
  armed_for_ = due;
  timer_.reset();
  if (due == Instant::max()) return;
  timer_ = loop_.at(due, [this] {
    armed_for_ = Instant::max();
    engine_.tick(loop_.now());
    components_.tick(loop_.now());
    settle();
  });
}

// ---- TAPs ----

bool WireThread::read_batch(const PortId& port, os::Tap& tap, Instant now) {
  std::array<BytesView, kFramesPerBatch> frames;
  std::size_t count = 0;
  while (count < kFramesPerBatch) {
    const std::size_t size = tap.read(frame_buffers_[count]);
    if (size == 0) break;
    frames[count] = BytesView(frame_buffers_[count]).first(size);
    ++count;
  }
  if (count > 0) engine_.frames_from_port(port, std::span(frames).first(count), now);
  return count == kFramesPerBatch;
}

void WireThread::read_port(const PortId& port) {
  const auto found = attached_.find(port);
  if (found == attached_.end()) return;
  const Instant now = loop_.now();
  priority_->adapt(now);
  for (int i = 0; i < kBatchesPerWakeup && may_read(); ++i) {
    if (!read_batch(port, found->second.tap(), now)) break;
  }
  settle();
}

void WireThread::to_port(PortId port, std::span<const BytesView> frames) {
  const auto found = attached_.find(port);
  if (found == attached_.end()) return to_component(port, frames);
  Attached& attached = found->second;
  os::Tap& tap = attached.tap();
  for (const BytesView frame : frames) {
    if (attached.late) {
      if (attached.late_bytes + frame.size() > kMaxLateBytes) {
        ++tap_refused_;
        continue;
      }
      attached.late_bytes += frame.size();
      attached.late->push_back(to_bytes(frame));
      continue;
    }
    if (!attached.trapped.empty() && std::ranges::equal(attached.trapped, frame)) {
      attached.trapped.clear();  // resumed after an abort: QEMU delivers its copy itself
      continue;
    }
    if (attached.kept) attached.kept->wrote(frame);
    if (tap.write(frame) != os::FrameDevice::Written::kYes) ++tap_refused_;
  }
}

std::vector<Bytes> WireThread::take_back(Attached& attached, BytesView newest) {
  auto* pair = std::get_if<std::shared_ptr<os::TapPair>>(&attached.device);
  if (pair == nullptr) return {};
  std::vector<Bytes> untaken;
  Bytes buffer(os::kMaxFrameBytes);
  while (const std::size_t size = (*pair)->read_untaken(buffer)) {
    untaken.emplace_back(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(size));
  }
  if (!attached.kept) return untaken;
  auto recovered = attached.kept->recover(std::move(untaken), newest);
  if (recovered.lost_one) {
    ++tap_refused_;
    spdlog::warn("QEMU keeps a frame that came before the port was armed: it is lost");
  }
  attached.trapped = std::move(recovered.trapped);
  attached.kept.reset();
  return std::move(recovered.frames);
}

// QEMU stands: what the guest sent is in our TAP's queue already (the kernel forwards in QEMU's own
// write), what it did not take waits in its TAP, or in QEMU itself.
void WireThread::pause_port(const PortId& port, BytesView newest, Instant now) {
  const auto found = attached_.find(port);
  std::vector<Bytes> untaken;
  if (found != attached_.end()) {
    while (read_batch(port, found->second.tap(), now)) {
    }
    untaken = take_back(found->second, newest);
    if (found->second.late) std::ranges::move(*found->second.late, std::back_inserter(untaken));
    found->second.late.reset();
  }
  const std::vector<BytesView> views(untaken.begin(), untaken.end());
  engine_.pause(port, views, now);
}

void WireThread::resume_port(const PortId& port, Instant now) {
  if (const auto found = attached_.find(port); found != attached_.end()) {
    found->second.kept.reset();
    const auto late = std::exchange(found->second.late, std::nullopt);  // plugged, never paused
    for (const Bytes& frame : late.value_or(std::vector<Bytes>{})) {
      const BytesView view(frame);
      to_port(port, {&view, 1});
    }
  }
  engine_.resume(port, now);
}

void WireThread::watch(const PortId& port, Attached& attached) {
  attached.watch = loop_.watch(attached.tap().fd(), may_read() ? std::uint32_t{EPOLLIN} : 0,
                               [this, port](std::uint32_t) { read_port(port); });
}

void WireThread::watch_taps() {
  const std::uint32_t events = may_read() ? std::uint32_t{EPOLLIN} : 0;
  for (auto& [port, attached] : attached_) attached.watch.set_events(events);
}

// ---- UDP ----

void WireThread::watch_socket() {
  if (!socket_watch_) return;
  const std::uint32_t in = receives_ && !is_holding_ ? std::uint32_t{EPOLLIN} : 0;
  socket_watch_.set_events(in | (unsent_.empty() ? 0 : std::uint32_t{EPOLLOUT}));
}

void WireThread::receive() {
  priority_->adapt(loop_.now());
  for (int i = 0; i < kReceivesPerWakeup; ++i) {
    const auto received = socket_->receive_batch();
    if (received.empty()) break;
    const Instant now = loop_.now();
    for (const auto& run : received) {
      engine_.datagrams(to_peer_address(run.from), run.bytes, run.segment_size, now);
    }
  }
  settle();
}

void WireThread::to_path(const wire::PeerAddress& address, const wire::DatagramBatch& batch) {
  const os::Endpoint to = to_endpoint(address);
  runs_.clear();
  for (const auto& run : batch.runs()) {
    runs_.push_back({.to = to, .bytes = run.bytes, .segment_size = run.segment_size});
  }
  std::size_t taken = 0;
  if (socket_ && unsent_.empty()) taken = socket_->send_batch(runs_);
  for (std::size_t i = taken; i < runs_.size(); ++i) {
    keep_unsent(to, runs_[i].bytes, runs_[i].segment_size);
  }
}

// Our own datagrams go first: with any of them waiting, others' are dropped.
void WireThread::relay(const wire::PeerAddress& address, BytesView run,
                       std::uint16_t segment_size) {
  const os::DatagramRun out{.to = to_endpoint(address), .bytes = run, .segment_size = segment_size};
  if (socket_ && unsent_.empty() && socket_->send_batch({&out, 1}) == 1) return;
  relay_dropped_ += (run.size() + segment_size - 1) / segment_size;
}

void WireThread::keep_unsent(const os::Endpoint& to, BytesView bytes, std::uint16_t segment_size) {
  if (!socket_ || unsent_bytes_ + bytes.size() > kMaxUnsentBytes) {
    udp_dropped_ += (bytes.size() + segment_size - 1) / segment_size;
    return;
  }
  unsent_bytes_ += bytes.size();
  unsent_.push_back({.to = to, .bytes = to_bytes(bytes), .segment_size = segment_size});
  if (unsent_.size() > 1) return;
  watch_socket();
  watch_taps();
}

void WireThread::flush() {
  if (!socket_->flush()) return;
  while (!unsent_.empty()) {
    const Unsent& next = unsent_.front();
    const os::DatagramRun run{
        .to = next.to, .bytes = next.bytes, .segment_size = next.segment_size};
    if (socket_->send_batch({&run, 1}) == 0) return;
    unsent_bytes_ -= next.bytes.size();
    unsent_.pop_front();
  }
  watch_socket();
  watch_taps();
}

// ---- to the control thread ----

void WireThread::to_control(const std::string& peer, BytesView message) {
  control_.post([this, alive = std::weak_ptr(alive_), peer, bytes = to_bytes(message)] {
    if (!alive.expired()) handlers_.control(peer, bytes);
  });
}

void WireThread::event(const wire::Event& event) {
  control_.post([this, alive = std::weak_ptr(alive_), event] {
    if (!alive.expired()) handlers_.event(event);
  });
}

// ---- from the control thread ----

void WireThread::use_socket(std::shared_ptr<os::UdpSocket> socket, bool receives) {
  post([this, socket = std::move(socket), receives](Instant) {
    socket_watch_.reset();
    socket_ = socket;
    receives_ = receives;
    socket_watch_ = loop_.watch(socket_->fd(), 0, [this](std::uint32_t events) {
      if ((events & EPOLLOUT) != 0) flush();
      if ((events & EPOLLIN) != 0 && !is_holding_) receive();
    });
    watch_socket();
  });
}

void WireThread::session_up(const std::string& peer, const std::array<std::byte, 32>& secret,
                            bool is_initiator, std::vector<wire::PeerAddress> addresses) {
  post([this, peer, secret, is_initiator, addresses = std::move(addresses)](Instant now) {
    engine_.session_up(peer, secret, is_initiator, addresses, now);
  });
}

void WireThread::session_down(const std::string& peer) {
  post([this, peer](Instant now) { engine_.session_down(peer, now); });
}

void WireThread::use_addresses(std::vector<wire::PeerAddress> addresses) {
  post([this, addresses = std::move(addresses)](Instant now) mutable {
    engine_.use_addresses(std::move(addresses), now);
  });
}

void WireThread::addresses_changed() {
  post([this](Instant now) { engine_.addresses_changed(now); });
}

void WireThread::control(const std::string& peer, Bytes message) {
  post([this, peer, message = std::move(message)](Instant now) {
    engine_.control(peer, message, now);
  });
}

void WireThread::add_port(const wire::PortConfig& config) {
  post([this, config](Instant now) { engine_.add_port(config, now); });
}

void WireThread::remove_port(const PortId& port) {
  post([this, port](Instant now) { engine_.remove_port(port, now); });
}

void WireThread::attach_now(const PortId& port, PortDevice device) {
  attached_.erase(port);
  Attached& attached = attached_[port];
  attached.device = std::move(device);
  watch(port, attached);
}

void WireThread::attach(const PortId& port, PortDevice device) {
  post([this, port, device = std::move(device)](Instant) { attach_now(port, device); });
}

void WireThread::detach(const PortId& port) {
  post([this, port](Instant) { attached_.erase(port); });
}

void WireThread::connect(const wire::WireConfig& wire) {
  post([this, wire](Instant now) { engine_.connect(wire, now); });
}

void WireThread::disconnect(const WireId& wire) {
  post([this, wire](Instant now) { engine_.disconnect(wire, now); });
}

void WireThread::offer_move(const PortId& port, const std::string& to_host, Epoch epoch) {
  post(
      [this, port, to_host, epoch](Instant now) { engine_.offer_move(port, to_host, epoch, now); });
}

void WireThread::arm(const std::vector<PortId>& ports, std::function<void()> done) {
  post([this, ports, done = std::move(done)](Instant) {
    for (const PortId& port : ports) {
      if (const auto found = attached_.find(port); found != attached_.end()) {
        found->second.kept.emplace();
      }
    }
    control_.post(done);
  });
}

void WireThread::plug(const std::vector<PortId>& ports, std::function<void()> done) {
  post([this, ports, done = std::move(done)](Instant) {
    const Bytes plug = qemu::plug_frame();
    for (const PortId& port : ports) {
      const auto found = attached_.find(port);
      if (found == attached_.end()) continue;
      found->second.late.emplace();
      found->second.late_bytes = 0;
      if (found->second.kept) (void)found->second.tap().write(plug);
    }
    control_.post(done);
  });
}

void WireThread::pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
                       std::function<void()> done) {
  newest.resize(ports.size());
  post([this, ports, newest = std::move(newest), done = std::move(done)](Instant now) {
    for (std::size_t i = 0; i < ports.size(); ++i) pause_port(ports[i], newest[i], now);
    control_.post(done);
    for (const PortId& port : ports) tell_lost(port);  // asks the kernel: the pause does not wait
  });
}

void WireThread::resume(const std::vector<PortId>& ports) {
  post([this, ports](Instant now) {
    for (const PortId& port : ports) resume_port(port, now);
  });
}

void WireThread::release(const wire::PortEpoch& id) {
  post([this, id](Instant now) {
    engine_.release(id.port, now);
    engine_.drop_live(id, now);
  });
}

void WireThread::prepare(const wire::PortConfig& config, const std::string& from,
                         std::vector<wire::WireConfig> wires) {
  post([this, config, from, wires = std::move(wires)](Instant now) {
    engine_.prepare(config, from, wires, now);
  });
}

void WireThread::run(const std::vector<PortId>& ports) {
  post([this, ports](Instant now) {
    for (const PortId& port : ports) engine_.run(port, now);
  });
}

void WireThread::run(const PortId& port, PortDevice device) {
  post([this, port, device = std::move(device)](Instant now) {
    attach_now(port, device);
    engine_.run(port, now);
  });
}

void WireThread::discard(const PortId& port) {
  post([this, port](Instant now) { engine_.discard(port, now); });
}

void WireThread::place(const ComponentId& id, std::unique_ptr<net::Component> component,
                       std::map<net::PortIndex, PortId> ports) {
  post([this, id, component = std::move(component), ports = std::move(ports)](Instant now) mutable {
    components_.place(id, std::move(component), ports, now);
  });
}

void WireThread::remove_component(const ComponentId& id) {
  post([this, id](Instant) { components_.remove(id); });
}

void WireThread::port_counters(std::function<void(const PortCounters&)> done) {
  post([this, done = std::move(done)](Instant) {
    control_.post([done, counters = components_.counters()] { done(counters); });
  });
}

void WireThread::with_component(const ComponentId& id,
                                std::move_only_function<void(net::Component&, Instant)> work,
                                std::move_only_function<void()> done) {
  post([this, id, work = std::move(work), done = std::move(done)](Instant now) mutable {
    if (net::Component* component = components_.find(id)) work(*component, now);
    control_.post([done = std::move(done)]() mutable { done(); });
  });
}

void WireThread::stats(std::function<void(const Stats&)> done) { stats(false, std::move(done)); }

void WireThread::stats_and_losses(std::function<void(const Stats&)> done) {
  stats(true, std::move(done));
}

void WireThread::stats(bool losses, std::function<void(const Stats&)> done) {
  post([this, losses, done = std::move(done)](Instant) {
    Stats stats{.wires = engine_.wire_stats(),
                .ports = engine_.port_stats(),
                .peers = engine_.peer_stats(),
                .relayed = engine_.relay_stats(),
                .stray_datagrams = engine_.stray_datagrams(),
                .bad_control = engine_.bad_control(),
                .tap_refused = tap_refused_,
                .looped = components_.looped(),
                .udp_overflowed = socket_ ? socket_->counters().overflowed : 0,
                .udp_dropped = udp_dropped_,
                .relay_dropped = relay_dropped_,
                .crossing_dropped = crossing_dropped_};
    if (losses) {
      for (wire::WireStats& wire : stats.wires) add_lost(wire);
    }
    control_.post([done, stats = std::move(stats)] { done(stats); });
  });
}

void WireThread::tell_lost(const PortId& port) {
  const auto found = attached_.find(port);
  if (found == attached_.end()) return;
  const auto lost = lost_by(found->second.device);
  if (lost.to_agent + lost.to_guest == 0) return;
  spdlog::warn("{}: {} frames of its vm were lost, and {} to it: this host is too busy",
               found->second.tap().name(), lost.to_agent, lost.to_guest);
}

void WireThread::add_lost(wire::WireStats& wire) const {
  const auto found = attached_.find(wire.local);
  if (found == attached_.end()) return;
  const auto lost = lost_by(found->second.device);
  if (lost.to_agent > 0) wire.drops["agent_late"] = lost.to_agent;
  if (lost.to_guest > 0) wire.drops["vm_late"] = lost.to_guest;
}

}  // namespace godwit::agent

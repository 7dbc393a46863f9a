#pragma once
// A thread that carries packets: it runs one wire::Engine between TAPs and the UDP socket. A host
// has one or several (agent/wire_threads.hh).
//
//   TAP ── batch of reads ──▶ Engine ── sealed runs ──▶ UDP (GSO)
//   TAP ◀── writes ────────── Engine ◀── runs (GRO) ── UDP
//                              ▲ │
//                           Patchbay: components, whose ports are ports as a TAP's are
//
// The control thread only posts to it and is posted to; nothing is shared but TAP pairs, whose
// descriptors the control thread lends to QEMU. When UDP has no room, what is sealed waits
// (bounded) and no TAP is read until it is gone: the guest's queue is the buffer, as with any slow
// NIC.
#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <variant>

#include "agent/crossing.hh"
#include "net/patchbay.hh"
#include "os/loop.hh"
#include "os/priority.hh"
#include "os/tap.hh"
#include "os/tap_pair.hh"
#include "os/udp.hh"
#include "qemu/trapped_frame.hh"
#include "wire/engine.hh"

namespace godwit::agent {

// What stands behind a port: a guest's pair, or one TAP in the host's stack or a bridge.
using PortDevice = std::variant<std::shared_ptr<os::TapPair>, std::shared_ptr<os::Tap>>;

wire::PeerAddress to_peer_address(const os::Endpoint& endpoint);
os::Endpoint to_endpoint(const wire::PeerAddress& address);

class WireThread final : private wire::EngineSink, private wire::Siblings {
 public:
  // Called in the control thread.
  struct Handlers {
    std::function<void(const std::string& peer, const Bytes& message)> control;
    std::function<void(const wire::Event&)> event;
  };
  struct Stats {
    std::vector<wire::WireStats> wires;
    std::vector<wire::PortStats> ports;
    std::vector<wire::PeerStats> peers;
    wire::RelayStats relayed;
    std::uint64_t stray_datagrams = 0, bad_control = 0;
    std::uint64_t tap_refused = 0;       // frames that a TAP did not take
    std::uint64_t looped = 0;            // frames that went round between components
    std::uint64_t udp_overflowed = 0;    // that the kernel dropped, our receive buffer being full
    std::uint64_t udp_dropped = 0;       // datagrams dropped because UDP had no room for too long
    std::uint64_t relay_dropped = 0;     // of others, because UDP had no room
    std::uint64_t crossing_dropped = 0;  // on their way to a thread that was too far behind
  };
  // Between which threads the frames of a component's port go.
  struct Way {
    std::uint16_t port = 0, component = 0;
  };
  using Ways = std::map<PortId, Way>;

  WireThread(os::Loop& control, const std::string& self, const wire::Limits& limits,
             Handlers handlers, wire::Shard shard = {});
  ~WireThread() override;
  // All threads of this host, this one too, by their index: before anything else.
  void meet(std::vector<WireThread*> all) { all_ = std::move(all); }
  void end();  // before any of them is destroyed
  // Any thread may ask: the CPU time that it has taken, and with what it has waited for a CPU.
  Nanoseconds cpu_time();
  Nanoseconds working_time();

  // All of these return at once; the work is done in the wire thread, in order.
  void use_socket(std::shared_ptr<os::UdpSocket> socket, bool receives);
  void session_up(const std::string& peer, const std::array<std::byte, 32>& secret,
                  bool is_initiator, std::vector<wire::PeerAddress> addresses);
  void session_down(const std::string& peer);
  // Where this host is to be found: as configured, and again when its interfaces changed.
  void use_addresses(std::vector<wire::PeerAddress> addresses);
  void addresses_changed();
  void control(const std::string& peer, Bytes message);
  void add_port(const wire::PortConfig& config);
  void remove_port(const PortId& port);
  void attach(const PortId& port, PortDevice device);
  void detach(const PortId& port);
  void connect(const wire::WireConfig& wire);
  void disconnect(const WireId& wire);
  void offer_move(const PortId& port, const std::string& to_host, Epoch epoch);
  // The three steps around QEMU's STOP (qemu/trapped_frame.hh). arm(): keep copies of what is
  // written, from shortly before. plug(): QEMU stands, write nothing more but the plug. pause(),
  // after QEMU's main loop went round: forward the guest's last frames, take back what it did not
  // take, end the segment; `newest`: what each port's guest got last, if known. `done` is called in
  // the control thread.
  void arm(const std::vector<PortId>& ports, std::function<void()> done);
  void plug(const std::vector<PortId>& ports, std::function<void()> done);
  void pause(const std::vector<PortId>& ports, std::vector<Bytes> newest,
             std::function<void()> done);
  // All of them before anything that came for one is looked at: a component sends it to another.
  void resume(const std::vector<PortId>& ports);
  // Of the epoch that left; whether it was paused by this agent or one before.
  void release(const wire::PortEpoch& id);
  void prepare(const wire::PortConfig& config, const std::string& from,
               std::vector<wire::WireConfig> wires);
  void run(const std::vector<PortId>& ports);  // as resume()
  // With the device that it has from now on: what was held for it goes there, and what waits in it
  // is not looked at before.
  void run(const PortId& port, PortDevice device);
  void discard(const PortId& port);
  // See net::Patchbay; its ports were added, and none has a device.
  void place(const ComponentId& id, std::unique_ptr<net::Component> component,
             std::map<net::PortIndex, PortId> ports);
  void remove_component(const ComponentId& id);
  // Of all, by component and index of the port.
  using PortCounters = std::map<ComponentId, std::vector<net::PortCounters>>;
  void port_counters(std::function<void(const PortCounters&)> done);
  // `work` in the wire thread, if it is there; then `done` in the control thread.
  void with_component(const ComponentId& id,
                      std::move_only_function<void(net::Component&, Instant now)> work,
                      std::move_only_function<void()> done);
  // What goes over these ways is kept, and nothing is received, until use_ways(); `done` from this
  // thread.
  void hold(const Ways& ways, std::function<void()> done);
  void use_ways(const Ways& ways);
  // Ports and components, with all that is theirs, go to thread `to`, over which these are their
  // ways then. `done`, from this thread: what is told to that thread now is told after.
  void hand_on(std::vector<PortId> ports, std::vector<ComponentId> components, std::uint16_t to,
               const Ways& ways, std::function<void()> done);
  void stats(std::function<void(const Stats&)> done);
  // With what the kernel dropped, which it is asked for once per wire: not in a pause.
  void stats_and_losses(std::function<void(const Stats&)> done);

 private:
  struct Attached {
    PortDevice device;
    os::Loop::Watch watch;
    std::optional<qemu::TrappedFrame> kept;  // since arm()
    std::optional<std::vector<Bytes>> late;  // since plug(): what came and was not written
    std::size_t late_bytes = 0;              // of those
    Bytes trapped;                           // QEMU has it still, and delivers it if it resumes
    os::Tap& tap();
  };
  // What hand_on() gives the other thread.
  struct Luggage {
    std::shared_ptr<wire::Engine::Unit> unit;
    std::map<PortId, Attached> attached;
    std::map<ComponentId, net::Patchbay::Taken> components;
  };
  struct Unsent {
    os::Endpoint to;
    Bytes bytes;
    std::uint16_t segment_size = 0;
  };

  // wire::EngineSink
  void to_port(PortId port, std::span<const BytesView> frames) override;
  void to_path(const wire::PeerAddress& address, const wire::DatagramBatch& batch) override;
  void relay(const wire::PeerAddress& address, BytesView run, std::uint16_t segment_size) override;
  void to_control(const std::string& peer, BytesView message) override;
  void event(const wire::Event& event) override;
  // wire::Siblings
  void route(const std::string& host, const wire::Route& route) override;
  void frames_sent(const std::string& host) override;
  void datagrams(std::uint16_t shard, const wire::PeerAddress& from, BytesView run,
                 std::uint16_t segment_size) override;
  void release_index(std::uint32_t index) override;

  // crossing to other threads
  void to_component(const PortId& port, std::span<const BytesView> frames);
  void from_component(const PortId& port, std::span<const BytesView> frames, Instant now);
  bool keep(const PortId& port, bool to_component, std::span<const BytesView> frames);
  bool cross(const PortId& port, bool to_component, std::span<const BytesView> frames);
  void send_crossings();
  void crossed(const Crossing& crossing);
  void use(const Ways& ways);
  void tell_indices(std::vector<std::uint32_t> indices, std::uint16_t to);
  void board(Luggage& luggage, const Ways& ways);
  void watch(const PortId& port, Attached& attached);
  void attach_now(const PortId& port, PortDevice device);
  bool may_read() const { return unsent_.empty() && !crossings_->is_full(); }

  void post(std::move_only_function<void(Instant now)> work);
  // After each turn of the engine: what came to components goes on, and the timer is set.
  void settle();
  void stats(bool losses, std::function<void(const Stats&)> done);
  // True when as many frames came as were asked for: there may be more.
  bool read_batch(const PortId& port, os::Tap& tap, Instant now);
  void read_port(const PortId& port);
  void tell_lost(const PortId& port);
  void add_lost(wire::WireStats& wire) const;
  void pause_port(const PortId& port, BytesView newest, Instant now);
  std::vector<Bytes> take_back(Attached& attached, BytesView newest);
  void resume_port(const PortId& port, Instant now);
  void receive();
  void flush();
  void keep_unsent(const os::Endpoint& to, BytesView bytes, std::uint16_t segment_size);
  void watch_socket();
  void watch_taps();

  os::Loop& control_;
  Handlers handlers_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for posts to the control thread

  const std::uint16_t index_;
  std::vector<WireThread*> all_{this};

  // The wire thread's from here on.
  os::Loop loop_;
  wire::Engine engine_;
  net::Patchbay components_;
  std::map<PortId, Attached> attached_;
  std::shared_ptr<os::UdpSocket> socket_;
  bool receives_ = false, is_holding_ = false;
  os::Loop::Watch socket_watch_;
  os::Loop::Timer timer_;
  Instant armed_for_ = Instant::max();
  std::deque<Unsent> unsent_;
  std::size_t unsent_bytes_ = 0;
  std::vector<Bytes> frame_buffers_;
  std::vector<os::DatagramRun> runs_;
  std::optional<os::ThreadPriority> priority_;
  std::uint64_t tap_refused_ = 0, udp_dropped_ = 0, relay_dropped_ = 0, crossing_dropped_ = 0;
  Ways ways_;
  std::set<PortId> holding_;
  Crossing held_;
  std::map<std::uint16_t, std::unique_ptr<Crossing>> outgoing_;  // by thread
  std::shared_ptr<Crossings> crossings_ = std::make_shared<Crossings>();

  std::atomic<pid_t> id_ = 0;
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace godwit::agent

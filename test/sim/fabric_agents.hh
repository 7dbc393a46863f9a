#pragma once
// What agents do for the guests and components of their hosts, in the order of src/agent: they keep
// records of ports and wires, find peers, and move what lives with them. A stand-in: who owns what
// is decided in one moment, where agents have journals (the crash matrix is about those).
//
//   source: ports offered ─ state told while it forwards ─ ports paused, the rest ─▶ commit
//   target: ports held ──── state loaded ──────────────────────────────────────────▶ ports run
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "fabric_plan.hh"
#include "world.hh"

namespace godwit::sim {

class FabricAgents final {
 public:
  using Fail = std::function<void(std::string)>;
  FabricAgents(const FabricPlan& plan, World& world, Dice& dice, Fail fail);

  // What lives at the hosts begins there.
  void boot();
  // Of the engines.
  void event(const std::string& host, const wire::Event& event);
  // A frame at a port of a guest: whose, of the plan's residents. Nothing: that was wrong.
  std::optional<std::size_t> guest_at(const std::string& host, const PortId& port);
  // A guest's frame leaves, when it does not stand.
  void send(std::size_t resident, Bytes frame);

  // ---- what happens to it ----
  // Nothing, where it is under way already or an agent is down.
  void move(std::size_t resident, const std::string& target);
  // Nothing, where it is not under way or was committed.
  void abort(std::size_t resident);
  void restart(const std::string& host);
  // A port gets its wire from another one, which has none: as when a guest is connected to another
  // instance of its switch. The port that is left without a wire; nothing: it is not possible now.
  std::optional<std::size_t> connect_elsewhere(std::size_t port, std::size_t other);

  const std::string& host_of(std::size_t resident) const { return residents_[resident].host; }
  // Where it goes to, or where it is.
  const std::string& target_of(std::size_t resident) const;
  // In calm: whatever is not as it should be, or empty.
  std::string disorder() const;
  std::uint64_t moves = 0, aborts = 0, restarts = 0;

 private:
  enum class Step : std::uint8_t { idle, preparing, copying, deciding, broken, draining };
  struct Resident {
    std::string host{};
    Epoch epoch = 1;
    Epoch highest = 1;  // also of moves that failed
    bool runs = true;
    std::vector<Bytes> outbox{};  // of a guest that stands

    Step step = Step::idle;
    std::string target{};
    std::uint64_t attempt = 0;  // of a move; what belongs to an older one is dropped
    std::set<PortId> prepared{};
    std::unique_ptr<net::Component> arriving{};
    std::uint64_t told = 0, learned = 0;  // messages of state
  };
  struct Location {
    std::string host{};
    Epoch epoch = 1;
  };
  // The wire of a port, and where its peer is, by the records of who has the port and of where it
  // is awaited.
  struct Port {
    std::optional<std::size_t> peer{};
    WireId wire{};
    Location known{}, known_at_target{};
  };
  // Told in each session anew until it was taken.
  struct Telling {
    std::string from{}, to{};
    std::function<bool()> take{};
    bool is_done = false;
  };

  Engines* engine(const std::string& host) { return world_.host(host).engine(); }
  template <class Call>
  void at(const std::string& host, Call call);
  wire::WireConfig wire_of(std::size_t port, const Location& peer) const;
  std::map<net::PortIndex, PortId> ports_of(std::size_t resident) const;
  void install(std::size_t resident);
  void send_rest(std::size_t resident);
  void look_up(const std::string& host, std::size_t port);
  void found(const std::string& host, std::size_t port, const Location& peer);
  void tell(const std::string& from, const std::string& to, std::function<bool()> take);
  void tell(const std::shared_ptr<Telling>& telling);
  // `step` after `delay`, if the move is then the same.
  void after(Nanoseconds delay, std::size_t resident, void (FabricAgents::*step)(std::size_t));

  // fabric_moves.cc
  bool prepare(std::size_t resident);
  void prepared(std::size_t resident, const PortId& port);
  void copy(std::size_t resident);
  void tell_some(std::size_t resident);
  void tell_state(std::size_t resident, Bytes message);
  bool learn(std::size_t resident, std::uint64_t number, BytesView message);
  void pause(std::size_t resident);
  bool commit(std::size_t resident);
  void release(std::size_t resident, const std::string& from);
  void discard(std::size_t resident, const std::string& target, Epoch burned);
  void end_preparing(std::size_t resident);
  void give_up(std::size_t resident);

  // fabric_order.cc
  void expect_one(std::size_t resident);
  std::string disorder_at(const std::string& host) const;
  std::string disorder_of(std::size_t resident) const;
  std::string disorder_of_port(std::size_t port, const wire::WireStats& stats) const;

  const FabricPlan& plan_;
  World& world_;
  Dice& dice_;
  Fail fail_;
  const bool is_fine_;  // the weather was, when all began
  std::vector<Resident> residents_;
  std::vector<Port> ports_;
  std::unordered_map<PortId, std::size_t> by_id_;
};

template <class Call>
void FabricAgents::at(const std::string& host, Call call) {
  if (Engines* found = engine(host)) {
    call(*found);
    world_.host(host).schedule_tick();
  }
}

}  // namespace godwit::sim

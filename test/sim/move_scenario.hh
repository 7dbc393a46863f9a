#pragma once
// Two guests joined by a wire, sending to each other all the time while both are moved between
// hosts, by a stand-in for the agents that keeps to the order of design 9.
//
// Properties, after every event: no port is live at two hosts, no frame reaches a host where its
// guest is not, no frame is delivered twice. At the end, where nothing went wrong: every frame
// arrived, in order. With loss: no more frames are missing than datagrams were dropped.
#include <deque>
#include <optional>
#include <set>
#include <string>

#include "world.hh"

namespace godwit::sim {

struct MoveOutcome {
  std::string failure;  // empty: all properties held
  std::uint64_t sent = 0, received = 0, moves = 0, aborts = 0, restarts = 0;

  MoveOutcome& operator+=(const MoveOutcome& other) {
    sent += other.sent, received += other.received;
    moves += other.moves, aborts += other.aborts, restarts += other.restarts;
    return *this;
  }
};

class MoveScenario final {
 public:
  explicit MoveScenario(std::uint64_t seed, bool is_traced = false);
  MoveOutcome run();

 private:
  enum class Step { idle, preparing, paused, deciding, draining };

  // A guest with one NIC. What is here is what the agents' journals and QEMU would know.
  struct Guest {
    std::uint8_t number = 0;
    PortId port;
    std::string host;  // owner, by the journal
    Epoch epoch = 1;
    Epoch highest = 1;  // also of moves that failed
    bool running = true;
    std::deque<Bytes> tap;  // delivered by the engine, not yet taken by the guest

    std::uint64_t sent = 0;
    std::set<std::uint64_t> received;  // from the other guest
    std::uint64_t last = 0;
    std::uint64_t disordered = 0;

    Step step = Step::idle;
    std::string target;
    std::uint64_t attempt = 0;  // of a move; what belongs to an older one is dropped
    // Where each host last saw the *other* guest, as its agent's store would remember.
    std::map<std::string, std::pair<std::string, Epoch>> seen;
  };

  Engines* engine(const std::string& host) { return world_.host(host).engine(); }
  Guest& other(const Guest& guest) { return guests_[1 - guest.number]; }
  Guest& guest_of(const PortId& port) { return guests_[0].port == port ? guests_[0] : guests_[1]; }
  wire::WireConfig wire_of(const Guest& guest,
                           const std::string& host);  // as the agent there knows it
  template <class Call>
  void at(const std::string& host, Call call);

  void install(Guest& guest);
  void send_some(Guest& guest);
  void take_some(Guest& guest);
  void arrived(const std::string& host, PortId port, BytesView frame);
  void event(const std::string& host, const wire::Event& event);

  void plan_move(Guest& guest);
  void begin_move(Guest& guest);
  void pause(Guest& guest);
  void decide(Guest& guest);
  void commit(Guest& guest);
  void abort(Guest& guest);
  void plan_trouble();
  void restart(const std::string& host);
  void check();
  void fail(std::string text);

  Dice dice_;
  World world_;
  Guest guests_[2];
  WireId wire_;
  bool traffic_ = true, moving_ = true;
  MoveOutcome outcome_;
};

}  // namespace godwit::sim

#pragma once
// Hosts with engines and a patchbay each, a network and sessions between them, and a clock, all
// from one seed.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.hh"
#include "engines.hh"
#include "net/patchbay.hh"

namespace godwit::sim {

// What may go wrong in a run; drawn from the seed.
struct Weather {
  double loss = 0;        // of datagrams
  double duplicates = 0;  // of datagrams and of control messages
  bool reorders = false;  // datagrams of one path overtake each other
  bool cuts = false;      // of sessions, half of the time with the path under them
  bool restarts = false;  // agents die and come back

  // Frames then keep their order, and no wait for one ends in vain.
  bool is_calm() const { return loss == 0 && !reorders && !cuts && !restarts; }
};

class Dice final {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed) {}
  std::uint64_t word() { return random_(); }
  // In [from, to].
  std::uint64_t between(std::uint64_t from, std::uint64_t to) {
    return from + random_() % (to - from + 1);
  }
  Nanoseconds between(Nanoseconds from, Nanoseconds to) {
    return Nanoseconds(static_cast<std::int64_t>(
        between(static_cast<std::uint64_t>(from.count()), static_cast<std::uint64_t>(to.count()))));
  }
  bool happens(double probability) {
    return static_cast<double>(random_() >> 11) < probability * 9007199254740992.0;  // 2^53
  }

 private:
  std::mt19937_64 random_;
};

class World;

// One host: its engines and its components (absent while its agent is down), and what they
// send out.
class Host final : public wire::EngineSink {
 public:
  Host(World& world, std::string name, std::uint16_t index)
      : world_(world), name_(std::move(name)), index_(index) {}

  const std::string& name() const { return name_; }
  wire::PeerAddress address() const;
  Engines* engine() { return engine_.get(); }
  net::Patchbay* components() { return components_.get(); }
  // Frames that went round between components, ever.
  std::uint64_t looped() const { return looped_ + (components_ ? components_->looped() : 0); }
  void start();
  void stop();
  // Its monotonic clock: another than its neighbours', and it may jump ahead.
  Instant now() const;
  void step_clock(Nanoseconds ahead) { ahead_ += ahead; }
  // After each call into the engine: what came to components goes on, and both are ticked when they
  // want.
  void schedule_tick();
  // Whether the engine was called, made or lost since the last time this was asked.
  bool take_touched() { return std::exchange(touched_, false); }

  void to_port(PortId port, std::span<const BytesView> frames) override;
  void to_path(const wire::PeerAddress& address, const wire::DatagramBatch& batch) override;
  void relay(const wire::PeerAddress& address, BytesView run, std::uint16_t segment_size) override;
  void to_control(const std::string& peer, BytesView message) override;
  void event(const wire::Event& event) override;

 private:
  World& world_;
  const std::string name_;
  const std::uint16_t index_;
  std::unique_ptr<Engines> engine_;
  std::unique_ptr<net::Patchbay> components_;
  std::uint64_t looped_ = 0;  // at those that are gone
  Nanoseconds ahead_{};
  Instant tick_at_ = Instant::max();  // by the world's clock
  std::uint64_t incarnation_ = 0;
  bool touched_ = false;
};

class World final {
 public:
  using Task = std::function<void()>;

  World(std::uint64_t seed, Weather weather, std::size_t hosts);

  Instant now() const { return now_; }
  Dice& dice() { return dice_; }
  const Weather& weather() const { return weather_; }
  Host& host(const std::string& name) { return *hosts_.at(name); }
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<Host*>& hosts() const { return all_; }

  void after(Nanoseconds delay, Task task) {
    queue_.push({now_ + delay, next_order_++, std::move(task)});
  }
  // Runs events until `end`; `check` after each.
  void run_until(Instant end, const Task& check);
  void calm() { weather_.loss = 0, weather_.cuts = false, weather_.restarts = false; }

  // Both directions of one session, with a new secret.
  void connect(const std::string& a, const std::string& b);
  void cut(const std::string& a, const std::string& b);
  bool is_connected(const std::string& a, const std::string& b) {
    return session(a, b).number != 0;
  }
  // What goes over a session arrives once and in order (but for the weather's duplicates), unless
  // the session ends before.
  void send(const std::string& from, const std::string& to, Task deliver);
  // All datagrams between the two are dropped, or no longer.
  void cut_path(const std::string& a, const std::string& b, bool is_cut);
  // The same with what TCP makes of it: messages wait, and in the end both notice.
  void cut_link(const std::string& a, const std::string& b);
  void heal_link(const std::string& a, const std::string& b);
  bool is_cut(const std::string& a, const std::string& b) { return paths_.at({a, b}).is_cut; }
  Nanoseconds delay(const std::string& a, const std::string& b) { return paths_.at({a, b}).delay; }
  void stop_agent(const std::string& name);
  void start_agent(const std::string& name);  // sessions follow a little later

  // A line for who looks at one seed (--trace).
  template <class... Args>
  void trace(fmt::format_string<Args...> format, Args&&... args) {
    if (is_traced)
      fmt::print("{:10.3f} {}\n", to_ms(now_ - kBegin),
                 fmt::format(format, std::forward<Args>(args)...));
  }
  static constexpr Instant kBegin{seconds(1000)};
  static constexpr Nanoseconds kDeadAfter = seconds(15);  // session::SessionLimits::dead_after
  bool is_traced = false;
  std::uint16_t most_shards = 3;  // of a host; set before it starts
  bool watches_timers = true;     // whether all that engines wait for is seen to, after each call
  bool is_over = false;           // nothing happens any more: somebody has seen enough

  // The scenario's hooks.
  std::function<void(const std::string& host, PortId port, BytesView frame)> on_frame;
  std::function<void(const std::string& host, const wire::Event& event)> on_event;
  std::function<void(const std::string& host, const std::string& peer)> on_session =
      [](const std::string&, const std::string&) {};

  // Datagrams thrown away that may have carried a frame of `kMinFrame` bytes or more.
  static constexpr std::size_t kMinFrame = 700;
  // What every path carries. So small that no two such frames fit into one datagram.
  static constexpr std::size_t kPathBytes = 1372;
  std::uint64_t lost_large = 0;
  std::uint64_t datagrams = 0;
  // Two datagrams to one host had the same receiver index and counter: a nonce was used twice.
  bool nonce_reused = false;

 private:
  friend class Host;

  struct Event {
    Instant at;
    std::uint64_t order;
    Task task;
    bool operator<(const Event& other) const {
      return std::pair{other.at, other.order} < std::pair{at, order};
    }
  };
  struct Session {
    std::uint64_t number = 0;  // 0: down
    Instant last_ab{}, last_ba{};
  };
  struct Path {
    bool is_cut = false;
    Nanoseconds delay{};
    Instant last{};
    std::uint64_t cuts = 0;
    std::vector<Task> stalled;  // messages that TCP sends again once it can
  };

  Session& session(const std::string& a, const std::string& b) {
    return a < b ? sessions_[{a, b}] : sessions_[{b, a}];
  }
  void send_datagram(const std::string& from, const wire::PeerAddress& to, BytesView bytes);
  void deliver_datagram(const std::string& from, const std::string& to, Bytes bytes);
  void send_control(const std::string& from, const std::string& to, BytesView message);

  Dice dice_;
  Weather weather_;
  Instant now_ = kBegin;
  std::uint64_t next_order_ = 0;
  std::uint64_t next_session_ = 1;
  std::priority_queue<Event> queue_;
  std::vector<std::string> names_;
  std::map<std::string, std::unique_ptr<Host>> hosts_;
  std::vector<Host*> all_;
  std::map<std::pair<std::string, std::string>, Session> sessions_;
  std::map<std::pair<std::string, std::string>, Path> paths_;
  // By target, receiver index and counter: what was sealed, of which relays make no second one.
  // (Indices are random words: an engine that restarted
  // might draw an old one again, once in 2^32.)
  std::unordered_map<std::uint64_t, std::uint64_t> nonces_;
};

}  // namespace godwit::sim

#pragma once
// Which MAC address a neighbour has, by the port that it is at (RFC 826, RFC 4861 7.3): asked for
// when a packet wants it, asked again while it is used, forgotten when it does not answer. Packets
// wait for the answer, some. Pure: says whom to ask, and asks nobody.
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "net/account.hh"
#include "net/packet.hh"

namespace godwit::net {

class Neighbours final {
 public:
  struct Key {
    PortIndex port = 0;
    Ip ip{};
    auto operator<=>(const Key&) const = default;
  };
  struct Question {
    Key who{};
    std::optional<Mac> mac{};  // known: only it is asked
  };
  struct Entry {
    Key who{};
    std::optional<Mac> mac{};
  };
  explicit Neighbours(std::size_t most) : most_(most) {}

  // Known: it is used. Else wait().
  std::optional<Mac> find(const Key& who);
  enum class Waits : std::uint8_t { ask, waits, full };  // ask: it is the first for this neighbour
  Waits wait(const Key& who, BytesView frame, Instant now);
  // Somebody has said so. What waited for it, in order. `is_new`: also if nobody wanted to know.
  std::vector<Bytes> learn(const Key& who, Mac mac, bool is_new, Instant now);
  // Whom to ask again; `lost`: what waited in vain.
  std::vector<Question> tick(Instant now, std::vector<std::pair<Key, Bytes>>& lost);
  void forget_port(PortIndex port);

  std::vector<Entry> entries() const;

  // ---- for another instance's (state.hh) ----
  // Keeps account of what that one has not been told: at first, of all.
  void begin_account();
  void end_account() { account_.end(); }
  std::size_t untold() const { return account_.size(); }
  // Told, and no longer here; to be told before what is untold.
  std::optional<Key> next_gone() { return account_.next_gone(); }
  struct Told {
    Entry entry{};
    bool is_used = false;  // so that it will be asked again
    Instant due{};
    std::optional<BytesView> frame{};  // that waits, and was not told; of several one each time
  };
  std::optional<Told> next_untold();
  // As the other one had it; whom it was asking is asked again. What has no room is passed over.
  void put(const Told& told, Instant now);
  void remove(const Key& who);

 private:
  struct State {
    std::optional<Mac> mac{};
    bool is_used = false;
    int asked = 0;  // without an answer
    Instant due{};  // to look again
    std::deque<Bytes> waiting{};
    std::size_t told_waiting = 0;
  };

  std::size_t most_;
  std::map<Key, State> all_;
  Account<Key> account_;
};

}  // namespace godwit::net

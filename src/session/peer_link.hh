#pragma once
// All connections with one peer, of which at most one is the session. Owned by Sessions.
//
// Both sides may dial at once, one side may have lost a connection that the other still believes
// in, a relayed session may give way to a direct one. So that both keep the same connection, only
// one side chooses: the host whose name sorts first; of two fleets, that whose CA's fingerprint
// does, since what each calls the other is its own affair.
//
//   dialled or accepted -> CANDIDATE: both push session.hello {instance, replaces}
//   chooser:  pushes session.select on one candidate   -> ACTIVE
//   the other: receives session.select                 -> ACTIVE
//   a former active one -> RETIRED (its requests may still be answered), closed after kRetireFor
//
// The chooser, with an active session when another candidate says hello, selects the new one at
// once if the peer restarted (another `instance`), if it was dialled to replace the active one, or
// if it is direct and the active one relayed. Else it asks the active one for a sign of life
// (ping) and lets the candidate wait: a pong dooms the candidate, silence for kProbe dooms the
// active one.
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "os/endpoint.hh"
#include "session/dial.hh"
#include "session/session.hh"
#include "session/version.hh"

namespace godwit::session {

constexpr Nanoseconds kFirstBackoff = milliseconds(200);
constexpr Nanoseconds kSelectTimeout = seconds(10);
constexpr Nanoseconds kProbe = seconds(3);
constexpr Nanoseconds kRetireFor = seconds(10);
constexpr std::size_t kMaxCandidates = 4;
constexpr std::size_t kMaxRetired = 4;

struct LinkLimits {
  SessionLimits session;
  Versions versions = own_versions();
  Nanoseconds max_backoff = seconds(10);
  Nanoseconds stable_after = seconds(5);        // a session that lived so long resets the backoff
  Nanoseconds max_age = std::chrono::hours(1);  // then a new handshake: forward secrecy
  Nanoseconds direct_retry = seconds(60);  // how often a relayed session tries to become direct
};

class PeerLink;

class PeerLinkOwner {
 public:
  virtual ~PeerLinkOwner() = default;
  virtual void on_link_up(Session& session) = 0;
  virtual void on_link_down(const std::string& peer, const std::string& reason) = 0;
  virtual void on_link_request(Session& session, const std::string& method,
                               const nlohmann::json& body, Responder responder) = 0;
  virtual void on_link_push(Session& session, const std::string& method, BytesView body) = 0;
  // Dials the peer, through relays too if `relays`.
  virtual std::unique_ptr<Dial> dial_link(const std::string& peer,
                                          const std::vector<os::Endpoint>& addresses, bool relays,
                                          Dial::Done done) = 0;
};

class PeerLink final : private SessionEvents {
 public:
  PeerLink(os::Loop& loop, bool is_chooser, std::string peer, std::string instance,
           const LinkLimits& limits, PeerLinkOwner& owner);
  PeerLink(const PeerLink&) = delete;
  PeerLink& operator=(const PeerLink&) = delete;

  // Keeps the session up from now on. Again with other addresses: they are used from the next
  // dial.
  void want(std::vector<os::Endpoint> addresses);
  // Ends the session and dials no more.
  void forget();
  // A connection that the peer made, its handshake done.
  void add(std::unique_ptr<TlsStream> stream, std::string via);

  const std::string& peer() const { return peer_; }
  Session* session() const { return active_ ? active_->session.get() : nullptr; }
  bool wanted() const { return wanted_; }
  const std::vector<os::Endpoint>& addresses() const { return addresses_; }
  // Why there is no session; empty when nothing was tried.
  const std::string& last_error() const { return last_error_; }

 private:
  struct Connection {
    std::unique_ptr<Session> session;
    std::string instance;   // the peer's, from its hello
    bool replaces = false;  // dialled, by either side, to replace the active one
    bool greeted = false;   // its hello has come
    os::Loop::Timer deadline;
  };
  using Connections = std::list<std::unique_ptr<Connection>>;

  void on_request(Session& session, const std::string& method, const nlohmann::json& body,
                  Responder responder) override;
  void on_push(Session& session, const std::string& method, BytesView body) override;
  void on_pong(Session& session) override;
  void on_closed(Session& session, const std::string& reason) override;

  bool is_chooser() const { return is_chooser_; }
  Connection* candidate(const Session& session);
  void consider_dialing();
  void start_dial(bool relays);
  void schedule_dial();
  void on_dialed(Result<Dial::Reached> reached, bool replaces);
  void add_candidate(std::unique_ptr<TlsStream> stream, std::string via, bool replaces);
  void on_hello(Connection& connection, BytesView body);
  void judge(Connection& connection);
  void select(Connection& connection);
  void activate(Connection& connection);
  void retire(std::unique_ptr<Connection> old);
  void drop_candidates(const std::string& reason);
  void on_active_lost(const std::string& reason);
  void schedule_renewal();
  void renew();
  void bury(std::unique_ptr<Connection> connection);

  os::Loop& loop_;
  const bool is_chooser_;
  const std::string peer_;
  const std::string instance_;
  const LinkLimits limits_;
  PeerLinkOwner& owner_;

  bool wanted_ = false;
  std::vector<os::Endpoint> addresses_;
  std::string last_error_;
  std::unique_ptr<Connection> active_;
  Instant active_since_{};
  Connections candidates_;
  Connections retired_;
  Connections buried_;  // ended; destroyed in the loop's next turn, outside their callbacks
  std::unique_ptr<Dial> dial_;
  Nanoseconds backoff_ = kFirstBackoff;
  os::Loop::Timer redial_;
  os::Loop::Timer renewal_;
  os::Loop::Timer sweep_;
};

}  // namespace godwit::session

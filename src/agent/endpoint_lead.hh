#pragma once
// A guest goes where its address means nothing, and its connections live on (strategy endpoint,
// after Kalim et al.): in those that are older than the move its packets have an address of the new
// host on their way, and its own where they are looked at; new ones have another address of that
// host.
//
//   stage   the hosts of correspondents agree on labels; a relay is made for all others
//   it runs correspondents' hosts are told, where none of those is on its way itself
//   lead    what the relay brings, and takes, is the guest's; so is what comes from correspondents
//   the uplink there stands: the kernel here has its last connections, all other hosts are told
//   then    what is left is counted; the relay ends with its last connection, or in time
//   stay    the guest goes on: what it came with is relayed to there, for as long as that needs it
//
// At home its address is its own again: what is older has no other on its way there, and only what
// knows it by another is relayed.
//
// docs/protocol/endpoint.md; what the source does is in endpoint_source.hh. Its steps are in
// endpoint_lead.cc, with what comes of them beside it: _after, _stay, _told.
#include <memory>

#include "agent/endpoint_parts.hh"
#include "agent/lead.hh"

namespace godwit::agent {

class EndpointLead final : public Lead, public EndpointStay {
 public:
  EndpointLead(const Context& context, EndpointParts& parts, Owner owner);
  ~EndpointLead() override;

  void stage() override;
  void undo() override;
  void restart() override;
  Result<> uplink_is_held() override;
  void guest_runs() override;
  void lead() override;
  void abandon_source() override;
  void uplink_stands(const nlohmann::json& told, std::function<void()> done) override;
  void uplink_is_here() override;
  bool give_up() override;
  void guest_left() override;
  void guest_stays() override;
  void relay_ended() override;
  std::string relay_needed_by() const override;

  std::vector<GuestAddress> guest() const override;
  translate::Phase reached() const override { return reached_; }
  bool is_over() const override { return is_over_; }
  std::string refusal() const override { return refusal_; }
  std::string missing() const override;
  nlohmann::json describe() const override;

 private:
  static constexpr const char* kConnectionsKind = "relocation connections";  // by port
  static constexpr Nanoseconds kEndpointTimeout = seconds(3);
  struct Correspondents {  // of one host
    std::string host;
    std::string with;  // the host that agreed, if they were there then
    Bytes secret{};
    std::set<Ip> direct{};        // once it knows where the guest is
    std::set<Ip> awaited{};       // known to be there, without its word yet
    bool knows_if_early = false;  // its host, as it said when it agreed
    bool was_told = false, has_answered = false, is_asked = false, is_ended = false;
  };
  struct Alive {  // connections that are older than the move
    std::size_t direct = 0, relayed = 0;
  };

  std::string name() const;  // of what the kernel does for it
  std::set<Ip> addresses() const;
  bool is_over_here() const;
  bool is_home() const { return on_the_way_.empty(); }
  void ask_source(const char* method, nlohmann::json body, Nanoseconds timeout,
                  EndpointSource::Answer answer);
  void tell(const std::string& trouble);
  void reach(translate::Phase phase);
  void staged(const nlohmann::json& told);
  void make_relay(const std::string& port);
  void remove_relay();
  void refuse(const std::string& why);
  void take_back();
  Result<> inherit(const nlohmann::json& told);
  Result<> mark_inherited();
  Result<> forget_others(const std::vector<os::Connection>& before);
  std::vector<os::Connection> began_since() const;
  Result<> write();
  void stand(const nlohmann::json& told);
  void tell_early();
  void update_all(const std::function<bool(const Correspondents&)>& are_meant);
  void update(std::size_t index);
  void updated(std::size_t index, const Result<nlohmann::json>& reply);
  std::vector<std::size_t> moved_on(std::size_t index, const nlohmann::json& reply);
  bool is_direct(const Ip& correspondent) const;
  void reach_flipped();
  bool all_are_told() const;
  std::set<Ends> inherited_ends() const;
  Result<Alive> count() const;
  void watch();
  void watch_stay();
  void tell_of_home();
  void forget_dead() const;
  void end_relay(std::size_t relayed, bool is_late);
  void end_correspondents();
  void end_at(std::size_t index);
  void end_if_all();
  void save();
  void save_connections();
  nlohmann::json to_json() const;
  void load(const nlohmann::json& json);

  Context context_;
  EndpointParts& parts_;
  Owner owner_;
  translate::Phase reached_;
  std::map<Ip, Ip> on_the_way_;
  std::vector<Correspondents> correspondents_;
  std::vector<os::Connection> inherited_;  // as the source listed them last
  std::set<Ends> agreed_;                  // of those, with their correspondents' hosts
  std::size_t left_out_ = 0;               // of that list
  std::string relay_, interface_;          // this end; empty: there is none
  std::int64_t relay_limit_s_ = 24L * 3600;
  std::int64_t relay_until_ = 0;       // seconds since 1970
  std::optional<Instant> here_since_;  // the uplink
  Alive alive_now_;
  std::size_t cut_ = 0;     // that the end of the relay reset
  bool are_saved_ = false;  // those in inherited_
  bool is_over_ = false, is_given_up_ = false;
  bool stands_ = false;    // the uplink there, or nobody asks for it any more
  bool renames_ = false;   // the source's host, or one before it
  bool has_left_ = false;  // the guest, after it was here
  bool is_home_told_ = false;
  std::string refusal_, trouble_;
  os::Loop::Timer retry_, watch_;
  std::map<std::size_t, os::Loop::Timer> update_retries_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// A component's move at its target: migrate::Target, as for a vm. The component is made from its
// settings, learns what comes, and is given to the wire thread when its ports run here. Until then
// it is in this agent's memory only: one that restarts refuses it. Control thread.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/components.hh"
#include "agent/source_move.hh"
#include "agent/state_message.hh"
#include "migrate/target.hh"

namespace godwit::agent {

// kind "component-target", by id.
struct ComponentTargetRecord {
  MigrationId id{};
  std::string from{};  // host
  migrate::TargetState state = migrate::TargetState::planned;
  std::string reason{};
  std::int64_t started = 0;  // seconds since 1970
  std::string by{};          // who asked for it at the source, by the source's word
  fabric::ComponentRecord component{};
  nlohmann::json ports{};  // as the source described them
  Epoch epoch = 0;
  bool has_arrived = false;  // it and its ports are of this host, or were
  bool refusal_told = true;  // false while the source has not heard of a failure here
  bool restarted = false;    // that this agent was is why it was refused
};
nlohmann::json to_json(const ComponentTargetRecord& record);
ComponentTargetRecord component_target_record(const nlohmann::json& json);

class ComponentTarget final {
 public:
  ComponentTarget(const SourceMove::Context& context, ComponentTargetRecord record);

  void prepare(PeerRequest request);
  // What it knows, or has learned since, in messages that are numbered from 1, each kept until it
  // is asked to be taken.
  void keep(StateMessage message) { kept_ = std::move(message); }
  void learn(PeerRequest request, const nlohmann::json& body);
  void commit(PeerRequest request);
  void abort(PeerRequest request, const std::string& reason);
  Result<> give_up();           // the operator's wish, before it owns the component
  Result<> source_destroyed();  // the operator's word: run what has come whole
  void restart();
  void on_session_up() { feed(migrate::TargetEvent::session_up, {}); }
  bool settled() const;

  const ComponentTargetRecord& record() const { return record_; }
  nlohmann::json describe() const;

 private:
  void feed(migrate::TargetEvent event, std::string text = {});
  Result<Bytes> message_of(const nlohmann::json& body);
  Result<> load(const nlohmann::json& body);
  Result<> perform(migrate::TargetEffect effect);
  void perform_surely(migrate::TargetEffect effect);
  nlohmann::json journal_entry();
  void recorded();
  void prepare_component();
  bool hold_ports();
  void run_component();
  void run_ports();
  void notify_failed();
  void reply(const nlohmann::json& body);

  SourceMove::Context context_;
  ComponentTargetRecord record_;
  std::optional<migrate::TargetState> published_;
  migrate::Target machine_;
  migrate::EventQueue<migrate::Target> queue_;
  std::unique_ptr<net::Component> component_;  // until it has arrived
  std::uint64_t learned_ = 0;                  // messages
  StateMessage kept_{};                        // that was pushed
  std::optional<StateUnpacker> unpacker_{};
  std::vector<PortId> holding_;
  std::optional<PeerRequest> preparing_;
  std::vector<PeerRequest> waiting_;  // commits and aborts without an answer yet
  Network::Held held_;
  Instant committed_{}, runs_since_{};
  os::Loop::Timer bound_, again_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// A component's move at its source: migrate::Source, as for a vm, with what the component has
// learned in the place of memory.
//
//   begin_state() ─▶ what it knows, in messages, while it forwards ─▶ what has changed since, again
//   and again ─▶ ports paused: the last of it ─▶ released, commit
//
// The last message and the commit leave one behind the other; the target takes the commit only with
// the message, so that a move costs the component half a round trip. Control thread.
#include <memory>
#include <optional>
#include <string>

#include "agent/components.hh"
#include "agent/source_move.hh"
#include "agent/state_sender.hh"

namespace godwit::agent {

class ComponentSource final : public Move {
 public:
  ComponentSource(const SourceMove::Context& context, SourceRecord record);

  Result<> accept() override;
  void begin() override { feed(migrate::SourceEvent::begin); }
  void restart() override;
  void session_up();
  using Move::feed;
  void feed(migrate::SourceEvent event, std::string text) override;
  void give_up() override;
  Result<> set(const MoveChanges& changes) override;
  void break_off() override;
  void went_on(const std::optional<MigrationId>& as) override;
  void share(const std::shared_ptr<SharedIndex>&) override {}  // it has no memory
  void share_bandwidth(BitRate cap) override;
  void regroup(const GroupPlace& place) override;
  double remaining_bytes() const override;
  double dirty_bytes_per_second() const override { return 0; }

  const SourceRecord& record() const override { return record_; }
  migrate::SourceState state() const override { return machine_.state(); }
  const std::string& reason() const override { return machine_.reason(); }
  nlohmann::json describe() const override;
  nlohmann::json progress() const override;
  bool over() const override { return machine_.over(); }
  bool handed_over() const override;

 private:
  Result<> perform(migrate::SourceEffect effect);
  void perform_surely(migrate::SourceEffect effect);
  nlohmann::json journal_entry();
  void recorded();
  void save();
  void publish_done();
  void publish_progress();
  void wait();
  void prepare_target();
  void begin_to_tell();
  void tell_some();
  void tell(const Components::Taken& taken);
  void see_whether_all_was_told();
  void maybe_converged();
  void freeze();
  void tell_last(const Components::Taken& taken);
  void commit_target();
  void owned(const nlohmann::json& reply);
  void abort_target();
  void forget();
  bool has_come_back() const;
  std::string shown_state() const;

  SourceMove::Context context_;
  SourceRecord record_;
  std::optional<migrate::SourceState> published_;
  migrate::Source machine_;
  migrate::EventQueue<migrate::Source> queue_;
  std::optional<StateSender> sender_;
  bool is_taking_ = false;
  bool more_ = true;                // there was much when it was last asked
  double left_bytes_ = 0;           // of messages; about
  std::optional<double> at_first_;  // were these
  Instant begun_{}, all_told_{}, frozen_{}, released_{};
  os::Loop::Timer bound_, next_, again_, progress_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

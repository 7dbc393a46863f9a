#pragma once
// A guest in a routed network keeps its addresses on another host: its uplink follows it there, and
// packets for it are led there (lead.hh). Driven by the host where it goes, from before the pause
// until nothing of it is left where it was:
//
//   stage ─▶ packets can be led here, none is yet
//         ─▶ the uplink is held here, its peer knows               ── undo ─▶ as before
//   follow (the guest is to run here, its wire still ends at the source's uplink)
//     ─▶ the source's host sends on what comes to it: the TAP of the held uplink keeps it
//     ─▶ the uplink is paused there, and runs here: a hand-over as a vm's port's, none lost; a
//        source that can pause it as it hands the guest over says so (source_stands)
//     ─▶ all lead here ─▶ nothing comes to the source any more ─▶ what led there is cleaned up
//
// The guest waits for no step, and each can be repeated: what fails is tried again, the wire
// serves meanwhile. An uplink that could not be held in time, or is held no more since the agent
// ended, is when the guest runs. Of a source that is gone nobody waits.
#include <memory>

#include "agent/lead.hh"

namespace godwit::agent {

class Relocation final {
 public:
  using Context = Lead::Context;
  using MakeLead = std::function<std::unique_ptr<Lead>(const Lead::Owner&)>;
  // With what is told of it: {staged_ms}, {forwarded_ms, uplink_ms, flipped_ms, ...}.
  using Done = std::move_only_function<void(Result<nlohmann::json>)>;

  // Throws what `make_lead` does.
  Relocation(const Context& context, RelocationRecord record, const MakeLead& make_lead);

  void stage(Done done);
  void follow(Done done);
  void undo();
  // By its word, before it was asked: `told` is what uplink.pause would have been answered.
  void source_stands(const nlohmann::json& told);
  void restart();  // goes on as the record says
  bool give_up() { return is_here() && lead_->give_up(); }
  // The guest is served from here, what is left is to clean up.
  bool is_here() const { return record_.here && lead_->is_led(); }
  bool is_over() const { return is_over_; }
  bool is_staging() const { return record_.wanted == translate::Phase::staged; }
  const RelocationRecord& record() const { return record_; }
  nlohmann::json describe() const;

 private:
  // Led: what is for the guest comes to the held one.
  enum class Uplink : std::uint8_t { there, asking, held, led, pausing, here };

  void advance();
  void save();
  void staging();
  void staging_failed(const std::string& why);
  bool source_is_gone();
  void ask_source(const char* method, Peers::Reply reply);
  bool has_run() const;
  void hold_uplink();
  void offered(const nlohmann::json& described);
  Result<> hold(nlohmann::json described);
  Result<> hold_alone();
  void uplink_held();
  void lead_here();
  void await_source();
  void pause_uplink();
  void uplink_stands();
  void run_uplink();
  void try_again(const std::string& why);
  void go_on();
  bool takes_back() const;
  void let_source_go();
  void clean_up();
  void followed();
  const char* place_of_uplink() const;
  void end();
  double elapsed_ms() const;

  Context context_;
  RelocationRecord record_;
  std::unique_ptr<Lead> lead_;
  Uplink uplink_ = Uplink::there;
  bool is_over_ = false, is_telling_ = false;
  Done staged_, followed_;
  nlohmann::json report_;
  Instant began_{};
  std::optional<Instant> source_lost_;
  std::optional<nlohmann::json> told_;  // by the source, whose uplink stands
  std::string trouble_;                 // that was told
  os::Loop::Timer uplink_timer_, await_timer_, tell_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

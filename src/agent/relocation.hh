#pragma once
// A guest in a routed network keeps its addresses on another host (strategy nat): its uplink
// follows it there, and packets for it are led there by the fabric's devices. Driven by the host
// where it goes, from before the pause until nothing of it is left where it was:
//
//   stage ─▶ devices can have the rules, nothing is led yet        ── undo ─▶ as before
//   follow (the guest runs here, its wire still ends at the source's uplink)
//     ─▶ the uplink is held here, its peer knows
//     ─▶ the source's host sends on what comes to it: the uplink's TAP here keeps it
//     ─▶ the uplink is paused there, and runs here: a hand-over as a vm's port's, none lost
//     ─▶ all devices lead here ─▶ nothing comes to the source any more ─▶ its rules go
//
// No step is in the guest's pause, and each can be repeated: what fails is tried again, the wire
// serves meanwhile. Of a source that is gone nobody waits.
#include <memory>

#include "agent/device_driver.hh"
#include "agent/network.hh"
#include "agent/relocation_record.hh"

namespace godwit::agent {

class Relocation final {
 public:
  struct Context {
    os::Loop& loop;
    const Config& config;
    store::Store& store;
    Network& network;
    Peers& peers;
    DeviceDriver& device;
    Events& events;
  };
  // With what is told of it: {staged_ms}, {forwarded_ms, uplink_ms, flipped_ms, ...}.
  using Done = std::move_only_function<void(Result<nlohmann::json>)>;

  // Throws SetupError if the fabric has not (any more) what the record names.
  Relocation(const Context& context, std::shared_ptr<const translate::Fabric> fabric,
             RelocationRecord record);

  void stage(Done done);
  void follow(Done done);
  void undo();
  void restart();  // goes on as the record says
  // The guest is served from here, what is left is to clean up.
  bool is_here() const { return record_.here && rollout_.reached() >= translate::Phase::flipped; }
  bool is_over() const { return is_over_; }
  bool is_staging() const { return record_.wanted == translate::Phase::staged; }
  const RelocationRecord& record() const { return record_; }
  nlohmann::json describe() const;

  static translate::GuestMove move_of(const translate::Fabric& fabric, const std::string& to,
                                      const RelocationRecord& record);

 private:
  enum class Uplink : std::uint8_t { there, asking, held, pausing, here };

  void pump();
  void send(const translate::Rollout::Request& request);
  void answered(const translate::Rollout::Request& request, const Result<>& result);
  void advance();
  void save();
  void staging_failed(const std::string& why);
  bool source_is_gone();
  void ask_source(const char* method, Peers::Reply reply);
  void move_uplink();
  void hold_uplink(nlohmann::json described);
  void uplink_held();
  void await_source();
  void pause_uplink();
  void run_uplink();
  void try_again(const std::string& why);
  void release_uplink();
  void followed();
  void watch_quiet();
  void quiet(std::uint64_t packets);
  void end();
  std::string missing() const;
  double elapsed_ms() const;

  Context context_;
  std::shared_ptr<const translate::Fabric> fabric_;
  RelocationRecord record_;
  translate::Rollout rollout_;
  Uplink uplink_ = Uplink::there;
  bool is_over_ = false, is_releasing_ = false;
  Done staged_, followed_;
  nlohmann::json report_ = nlohmann::json::object();
  Instant began_{};
  std::optional<Instant> source_lost_;
  std::optional<std::uint64_t> packets_;  // that the source's host sent on, when asked last
  unsigned quiet_for_ = 0;                // looks
  std::string trouble_;                   // that was told
  os::Loop::Timer pump_timer_, uplink_timer_, quiet_timer_, patience_, release_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

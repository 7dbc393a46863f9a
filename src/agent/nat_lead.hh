#pragma once
// Packets for a guest are led by the fabric's devices, which make of its address one that leads to
// its new host (strategy nat; translate/rollout.hh): what each shall have is sent to it until it
// says that it has it. Once nothing came to the source's host for a while its rules go.
#include <memory>

#include "agent/lead.hh"

namespace godwit::agent {

class NatLead final : public Lead {
 public:
  // Throws SetupError if the fabric has not (any more) what the record names.
  NatLead(const Context& context, std::shared_ptr<const translate::Fabric> fabric, Owner owner);

  static translate::GuestMove move_of(const translate::Fabric& fabric, const std::string& to,
                                      const RelocationRecord& record);

  void stage() override;
  void undo() override;
  void restart() override;
  void lead() override;
  void abandon_source() override;
  void uplink_stands(const nlohmann::json& told, std::function<void()> done) override;
  void uplink_is_here() override;

  std::vector<GuestAddress> guest() const override;
  translate::Phase reached() const override { return rollout_.reached(); }
  bool is_over() const override;
  std::string refusal() const override;
  std::string missing() const override;
  nlohmann::json describe() const override;

 private:
  void pump();
  void send(const translate::Rollout::Request& request);
  void answered(const translate::Rollout::Request& request, const Result<>& result);
  void watch_quiet();
  void look_for_quiet();
  void quiet(std::uint64_t packets);

  Context context_;
  std::shared_ptr<const translate::Fabric> fabric_;
  Owner owner_;
  translate::Rollout rollout_;
  std::string late_;                      // of a stage whose patience has ended
  std::optional<std::uint64_t> packets_;  // that the source's host sent on, when asked last
  unsigned quiet_for_ = 0;                // looks
  os::Loop::Timer pump_timer_, patience_, quiet_timer_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

#pragma once
// What one device has for all guests: for each the greatest version that came. What is written to
// the device is all of it together (content()), so a device that was rebooted is given it anew.
// Owned by the device's driver. Pure.
#include "base/result.hh"
#include "translate/rollout.hh"

namespace godwit::translate {

// A map of the kernel's with so many addresses is 12 MiB; more displaced guests than most fabrics
// have hosts.
inline constexpr std::size_t kMostRules = 131'072;
// Guests without rules, whose versions are remembered so that what comes late is not taken.
inline constexpr std::size_t kMostGone = 4096;

struct GuestRules {
  Version version{};
  Rules rules{};
};

class DeviceRules final {
 public:
  // Nothing is done if it is not newer than what is there. Refused, and nothing is changed: one
  // that would take packets of another guest, or too many.
  Result<> set(const std::string& guest, const Version& version, const Rules& rules);
  // Its version, too: whatever comes next for it is taken.
  void forget(const std::string& guest);

  const std::map<std::string, GuestRules>& guests() const { return guests_; }
  // Of all guests, ascending.
  Rules content() const;

 private:
  // What only one guest's rule may be.
  struct Key {
    RuleKind kind{};
    Ip match{};
    bool is_active = true;
    auto operator<=>(const Key&) const = default;
  };
  static Key key_of(const Rule& rule) { return {rule.kind, rule.match, rule.is_active}; }
  void put(const std::string& guest, GuestRules rules);
  void forget_some();

  std::map<std::string, GuestRules> guests_;
  std::map<Key, std::string> owners_;
  std::size_t gone_ = 0;  // guests without rules
};

// What is wrong on a device whose rules, read back, are `found`; empty: nothing.
struct Difference {
  Rules missing{}, foreign{};
  bool empty() const { return missing.empty() && foreign.empty(); }
};
Difference compare(const Rules& wanted, const Rules& found);

}  // namespace godwit::translate

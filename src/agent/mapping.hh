#pragma once
// Publishes at which address guests are that left their home, for who begins new connections:
// in etcd, by the host where their uplinks are. docs/protocol/mapping.md.
//
//   Network: guests of this host ─▶ places ─▶ etcd: compared, written if it differs
//
// What should be there follows from what is here, so there is nothing to replay: after a restart,
// or when etcd is back, all is compared again, and every now and then. No step of a move waits for
// it. An uplink that left with its guest is its next host's to publish; only if that does not is it
// taken back here, after a while. Control thread.
#include <functional>
#include <map>
#include <memory>

#include "agent/mapping_record.hh"
#include "store/store.hh"

namespace godwit::agent {

struct MappingPatience {
  Nanoseconds settle = milliseconds(100);  // after a guest came; moves tell of several changes
  Nanoseconds retry = seconds(1), most_retry = seconds(15);  // it doubles in between
  Nanoseconds check = seconds(600);  // etcd may have been restored from a backup
  Nanoseconds left = seconds(600);   // of a guest that left, until its next host has published
};

class Mappings final {
 public:
  struct Context {
    os::Loop& loop;
    const std::string& host;
    const std::string& site;
    const MappingConfig& config;
    store::Store& store;
    // located_guests() of the network
    std::function<std::vector<LocatedGuest>(const std::set<PortId>& known)> guests;
  };
  // No `keys`: nothing is published, but list() tells what is known here.
  Mappings(const Context& context, std::unique_ptr<etcd::Keys> keys, MappingPatience patience = {});

  void start();                                // after Network::start()
  void look_soon();                            // guests came, left, or have other addresses
  void port_removed(const std::string& name);  // and not left with its guest

  // {etcd: {configured, trouble?}, mappings: [{vm, tenant, home, mobile, ..., published}]}: what
  // etcd has, with what this host has not written yet. With a tenant only its own.
  void list(const std::string& tenant, std::function<void(nlohmann::json)> done);

 private:
  enum class Is : std::uint8_t { here, left, removed };  // its uplink
  struct Entry {
    Place place;
    Is is = Is::here;
    bool is_published = false, is_kept = false;  // in etcd as it should be; in the store
    Instant due{};                               // to be compared
    Instant left_at{};
    bool has_failed = false;  // when it was last tried
    std::string superseded_by{};
  };
  struct Attempt {  // what was to be done, which may be something else when it is
    std::string key;
    Place place;
    Is is;
  };

  static std::string key_of(const Place& place);
  void look();
  void know(Place place);
  void keep(Entry& entry);
  void load();
  bool is_publishable(const Place& place) const;
  bool is_named(const std::string& name, const std::string& but) const;
  void pump();
  Entry* find(const Attempt& attempt);
  void compare(const std::string& key);
  void compared(const Attempt& attempt, const etcd::Found& found);
  void write(const Attempt& attempt, const etcd::Write& write);
  void succeeded(const Attempt& attempt, const std::string& superseded_by);
  void failed(const Attempt& attempt, const std::string& why);
  void forget(const std::string& key);
  nlohmann::json known(const std::string& tenant) const;
  nlohmann::json merged(const std::string& tenant, const etcd::Found& found) const;
  std::string prefix() const { return context_.config.prefix + "/mapping/"; }

  Context context_;
  std::unique_ptr<etcd::Keys> keys_;
  const MappingPatience patience_;
  const Publisher publisher_;
  std::map<std::string, Entry> entries_;  // by TENANT/HOME
  bool is_busy_ = false;
  unsigned listing_ = 0;
  Nanoseconds delay_{};  // before the next attempt; 0: the last one succeeded
  Instant not_before_{};
  std::string trouble_;
  os::Loop::Timer settle_, pump_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace godwit::agent

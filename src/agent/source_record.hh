#pragma once
// What the journal has of a migration at its source, and what the target is told of its encoding:
// values and their JSON form.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/records.hh"
#include "codec/encoder.hh"
#include "disk/outbound.hh"
#include "migrate/policy.hh"

namespace godwit::agent {

// A working set; 256 MiB saved no more on a database or a compiler (bench/RESULTS.md).
inline constexpr ByteCount kDefaultCache{64 << 20};
inline constexpr ByteCount kMaxCache{std::uint64_t{16} << 30};
// Of a session, from which on memory may be encoded, a move may come to post-copy, vms of a group
// share pages, a transfer takes several lanes, disks move, or stay where both hosts see them, a
// target tells what it has elsewhere, vms have volumes, and snapshots inside of disks' files move.
inline constexpr unsigned kCodecProtocol = 2;
inline constexpr unsigned kPostcopyProtocol = 3;
inline constexpr unsigned kGroupProtocol = 4;
inline constexpr unsigned kLanesProtocol = 5;
inline constexpr unsigned kDiskProtocol = 8;
inline constexpr unsigned kElsewhereProtocol = 9;
inline constexpr unsigned kVolumesProtocol = 10;
inline constexpr unsigned kSnapshotsProtocol = 11;
inline constexpr unsigned kComponentProtocol = 13;
// That knows of wires to other fleets.
inline constexpr unsigned kTrustProtocol = 14;
// That takes components' state in pushes.
inline constexpr unsigned kStateBytesProtocol = 15;
// That drives a fabric's device, and takes guests' uplinks.
inline constexpr unsigned kRulesProtocol = 16;
// That knows of connections that outlive an address, and tells all of them as an uplink stands.
inline constexpr unsigned kEndpointProtocol = 20;
// That has slots for NICs, and tells a guest which one is its way from now on.
inline constexpr unsigned kNicSlotsProtocol = 18;
// That takes memory that was compressed in several windows.
inline constexpr unsigned kWindowsProtocol = 19;
// That takes guests which have moved by endpoint before, and lets them go on.
inline constexpr unsigned kEndpointAgainProtocol = 20;
// That lets an uplink be held before its guest stands, and takes back that it was offered.
inline constexpr unsigned kWithdrawProtocol = 20;
// That takes what comes by a guest's relay before the guest is its own.
inline constexpr unsigned kStandsProtocol = 21;
// What vms of a group share, before the target compresses it.
inline constexpr ByteCount kMostShared{std::uint64_t{1} << 30};

// What the target's decoder has to know; null: memory comes as it is.
nlohmann::json to_json(const std::optional<codec::Settings>& codec);
Result<std::optional<codec::Settings>> parse_codec(const nlohmann::json& json);
// And to have, to decode what the vms of the group have in common; null: the vm shares nothing.
struct SharedPlace {
  MigrationId group{};
  std::uint32_t member = 0;
  std::uint64_t most_pages = 0;
};
nlohmann::json to_json(const std::optional<SharedPlace>& place);
Result<std::optional<SharedPlace>> parse_shared(const nlohmann::json& json);

// How the guest keeps its addresses: its wires stretch to where they ended, or, of NICs behind
// guests' uplinks, the fabric leads them to the new host (relocation.hh); or it does not keep them,
// and its connections live on (endpoint), where it has a NIC of the new network before it moves,
// too (secondary_nic). Automatic: nat where it can be, else wire.
enum class Strategy : std::uint8_t { automatic, wire, nat, endpoint, secondary_nic };
std::string_view to_text(Strategy strategy);
std::optional<Strategy> strategy(std::string_view text);
// Connections outlive the address.
bool leaves_address(Strategy strategy);

// How its uplinks follow a vm; member "leading" of what the target is told, absent: nat.
struct Leading {
  Strategy strategy = Strategy::nat;
  Nanoseconds relay_limit = seconds(24 * 3600);  // endpoint: of connections that need the old host
};
inline constexpr Nanoseconds kMostRelayLimit = seconds(30 * 24 * 3600);
nlohmann::json to_json(const Leading& leading);
Leading leading_of(const nlohmann::json& json);

// A move's part in a group, whose id is shown and steered like a migration's.
struct GroupPlace {
  MigrationId id;
  std::size_t index = 0, of = 0;
  bool in_order = false;
  bool hold = false;
  BitRate cap{};  // of the group; zero: none
};

// Where a vm's name is said, "component/sw1" is the component sw1.
inline constexpr std::string_view kComponentPrefix = "component/";

// kind "migration-source", by id; of components: "component-source".
struct SourceRecord {
  MigrationId id;
  std::string vm;  // or what moves instead, with its prefix
  std::string tenant{kDefaultTenant};
  std::string to;
  migrate::SourceState state = migrate::SourceState::planned;
  std::string reason;
  std::int64_t started = 0;    // seconds since 1970
  std::int64_t begins_at = 0;  // likewise: until then it is planned; 0: at once
  std::string by{};            // who asked for it: "ann", "uid 0"
  Nanoseconds max_downtime = milliseconds(300);
  migrate::StopPolicy stop_policy = migrate::StopPolicy::downtime;
  std::uint64_t bandwidth_bits_per_second = 0;  // 0: no cap
  bool hold = false;
  bool background = false;
  disk::Mode disk_mode = disk::Mode::async_then_sync;
  Nanoseconds max_write_latency{};  // of writes in step; zero: as long as they take
  bool delete_source = false;       // the vm's disks here, once it runs there
  bool shared_disks = false;        // both hosts see them: they stay
  std::uint8_t lanes = 0;           // 0: as many as the path is thought to need
  bool compact = true;
  bool known = true;                // what the target knows of the vm is not sent
  ByteCount cache = kDefaultCache;  // of pages, at each end
  migrate::OnDiverge on_diverge = migrate::OnDiverge::abort;
  bool resume = true;       // by another move, if an agent restarts while memory is copied
  bool broken_off = false;  // so it was
  std::string resumes{};    // the move that this one goes on with
  std::string resumed_as{};
  unsigned times_resumed = 0;  // in a row, up to this one
  std::optional<GroupPlace> group{};
  std::int64_t handed_over_ms = 0;  // since 1970, as the target's word came
  Epoch epoch = 0;                  // of the ports at the target
  std::vector<PortId> ports;
  Strategy strategy = Strategy::automatic;
  std::vector<PortId> uplinks{};  // that follow it (nat, endpoint, secondary_nic)
  PortId second_nic{};            // that is the vm's way there; zero: as it was
  Nanoseconds relay_limit = Leading{}.relay_limit;
  os::ProcessIdentity process;  // the vm's QEMU here; a vm that came back has another
  ComponentId component{};      // that moves; zero: a vm
  bool given_up = false;        // by an operator
  bool abort_told = true;       // false while the target has not heard of an abort
  bool memory_follows = false;  // post-copy: QEMU here has some of it still
  nlohmann::json report;        // once done
  nlohmann::json clock{};       // once it runs again, see ClockReport
  nlohmann::json network{};     // nat: what was told of each uplink, once they are there
  nlohmann::json flip{};        // to the second NIC, once it is known
  nlohmann::json hooks{};       // by moment: {ms, failure?}, of those that ran
};
// An agent that breaks off as many moves in a row is thought to do so because of them.
inline constexpr unsigned kMostResumed = 5;
// Planned, and its time has not come: nothing has begun that a restart could break off.
bool waits(const SourceRecord& record, std::int64_t now);
// Whether another move is to go on with it if an agent's restart ends it now.
bool may_go_on(const SourceRecord& record);
// It was broken off so, and the other is not there yet.
bool goes_on(const SourceRecord& record);
bool goes_postcopy(const SourceRecord& record);
// When it diverges, rather than abort.
bool pauses(const SourceRecord& record);
Leading leading_of(const SourceRecord& record);
nlohmann::json to_json(const SourceRecord& record);
SourceRecord source_record(const nlohmann::json& json);
// "vm web1", "component/sw1"
std::string spoken_name(const SourceRecord& record);
// What the API shows of every move from `host`, in this state.
nlohmann::json describe(const SourceRecord& record, const std::string& host,
                        const std::string& state);
// How the vm's memory is encoded, for an agent that speaks `protocol`. The members of a group
// divide the memory of one move among them: the kernel clears all of it, at both ends, while they
// are copied; and they are encoded at the same time anyway.
codec::Settings codec_settings(const SourceRecord& record, unsigned protocol);

}  // namespace godwit::agent

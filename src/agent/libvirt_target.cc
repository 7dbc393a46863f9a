#include "agent/libvirt_target.hh"

#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "agent/fault.hh"
#include "migrate/bounds.hh"

namespace godwit::agent {

using migrate::TargetState;

namespace {

// Of this host: the daemon for QEMU alone, or the one for all.
std::string libvirt_socket() {
  for (const char* path : {"/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock"}) {
    std::error_code error;
    if (std::filesystem::exists(path, error)) return path;
  }
  return "/run/libvirt/libvirt-sock";
}

bool has_bridge(const std::string& name) {
  std::error_code error;
  return std::filesystem::exists("/sys/class/net/" + name + "/bridge", error);
}

}  // namespace

LibvirtTarget::LibvirtTarget(const SourceMove::Context& context, LibvirtTargetRecord record)
    : context_(context),
      record_(std::move(record)),
      sockets_(context.config.run_dir, record_.id),
      cpu_at_begin_(process_cpu_seconds(::getpid())) {}

LibvirtTarget::~LibvirtTarget() { close(); }

void LibvirtTarget::enter(TargetState state) {
  record_.state = state;
  context_.store.put("libvirt-target", record_.id.text(), to_json(record_));
  context_.events.publish("migration", {{"id", record_.id.text()},
                                        {"vm", std::string(kLibvirtPrefix) + record_.domain.name},
                                        {"tenant", kNoTenant},
                                        {"by", record_.by},
                                        {"from", record_.from},
                                        {"target_state", migrate::to_text(state)},
                                        {"reason", record_.reason}});
}

// ---- preparing ----

void LibvirtTarget::prepare(PeerRequest request, const std::optional<codec::Settings>& codec) {
  preparing_ = std::move(request);
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config,
      std::vector<std::string>{"look", record_.domain.uuid, to_json(record_.domain).dump()},
      [this, codec](const Result<nlohmann::json>& found) {
        program_.reset();
        if (!found) return fail_with(found.error().text);
        looked(*found, codec);
      });
}

void LibvirtTarget::looked(const nlohmann::json& found,
                           const std::optional<codec::Settings>& codec) {
  std::vector<std::string> obstacles = obstacles_here(context_.store, record_.domain, found);
  if (!obstacles.empty()) return fail_with(obstacles.front());
  const auto there = texts_field(found, "there");
  for (const auto& disk : record_.domain.moving_disks()) {
    if (std::ranges::count(there, disk.path) == 0) record_.new_disks.push_back(disk.path);
  }
  enter(TargetState::preparing);
  try {
    open(codec);
  } catch (const SetupError& error) {
    return fail_with(error.what());
  }
  std::exchange(preparing_, {})->answer(nlohmann::json{{"prepared", true}});
}

// Throws SetupError.
void LibvirtTarget::open(const std::optional<codec::Settings>& codec) {
  if (auto made = make_directory(sockets_); !made) fail_setup("{}", made.error().text);
  const auto moving = record_.domain.moving_disks();
  std::optional<TransferLink::Coding> coding;
  if (codec) coding = {.settings = *codec};
  link_ = std::make_unique<TransferLink>(
      context_.loop, stream::TransferId::from(record_.id.bytes), stream::Role::kTarget,
      moving.empty() ? TransferLink::Disks::none : TransferLink::Disks::some, std::move(coding),
      TransferLink::Events{.mark = {},
                           .lane_lost = {},
                           .qemu_wanted =
                               [this] {
                                 link_->use_qemu(
                                     os::unix_connect(context_.loop, sockets_.memory.string()));
                               },
                           .memory_verified = {},
                           .failed = [this](const std::string& why) { fail_with(why); }});
  tunnel_ = std::make_unique<TunnelExit>(context_.loop, libvirt_socket());
  resume_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"resume", record_.domain.uuid},
      [this](const Result<nlohmann::json>& outcome) { runs(outcome); });
  if (moving.empty()) return;
  qemu::VmSpec vm;
  vm.name = record_.domain.name;
  DiskTarget::Served served{.socket = sockets_.disks.string(), .exports = {}};
  for (const auto& disk : moving) vm.disks.push_back({.name = disk.target, .size = disk.size});
  for (const auto& each : exports_of(record_.domain)) served.exports.push_back(each.name);
  disks_ = std::make_unique<DiskTarget>(
      context_.loop, std::move(vm), std::vector<qemu::DiskPaths>{}, DiskTarget::Seeds::none,
      nullptr, *link_,
      DiskTarget::Events{.ready = [] {},
                         .failed = [this](const std::string& why) { fail_with(why); }});
  disks_->use(std::move(served));
}

bool LibvirtTarget::use_lane(const stream::Hello& hello, std::unique_ptr<os::ByteStream>& lane,
                             BytesView early) {
  if (hello.transfer == tunnel_of(record_.id)) {
    if (tunnel_) tunnel_->use(std::move(lane));
    return true;
  }
  if (hello.transfer != stream::TransferId::from(record_.id.bytes)) return false;
  if (link_) link_->use_lane(hello.lane, std::move(lane), early);
  return true;
}

// The source ends it, at its libvirt and with that at ours.
void LibvirtTarget::fail_with(const std::string& why) {
  record_.reason = why;
  if (preparing_) {
    std::exchange(preparing_, {})->answer(fail("{}", why));
    enter(TargetState::refused);
    return close();
  }
  if (record_.state != TargetState::preparing) return;
  spdlog::warn("libvirt domain {} from {}: {}", record_.domain.name, record_.from, why);
  context_.peers.request(
      record_.from, "libvirt.failed", {{"id", record_.id.text()}, {"reason", why}},
      [](const Result<nlohmann::json>&) {}, migrate::kNotifyTimeout);
}

// ---- the end ----

void LibvirtTarget::commit(PeerRequest request) {
  waiting_.push_back(std::move(request));
  if (asked_ == Instant{}) asked_ = context_.loop.now();
  if (record_.state == TargetState::owner) return runs(nlohmann::json::object());
  if (record_.state == TargetState::refused) {
    return reply(nlohmann::json{{"refuses", record_.reason}});
  }
  fault_point("libvirt", "preparing", "run", Moment::before);
  if (waiting_.size() > 1) return;
  if (resume_) return resume_->go();
  // After a restart, or when it could not be done before.
  resume_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"run", record_.domain.uuid},
      [this](const Result<nlohmann::json>& outcome) { runs(outcome); });
}

void LibvirtTarget::runs(const Result<nlohmann::json>& outcome) {
  resume_.reset();
  if (waiting_.empty()) return;  // libvirt went away: it is asked again
  if (!outcome) return reply(std::unexpected(outcome.error()));
  if (outcome->contains("gone")) return reply(nlohmann::json{{"refuses", "it has ended, too"}});
  if (record_.state != TargetState::owner) {
    resume_took_ = context_.loop.now() - asked_;
    fault_point("libvirt", "preparing", "run", Moment::after);
    enter(TargetState::owner);
    context_.store.erase("libvirt-left", record_.domain.uuid);
  }
  reply(nlohmann::json{{"owns", true},
                       {"resume_ns", resume_took_.count()},
                       {"cpu_s", process_cpu_seconds(::getpid()) - cpu_at_begin_}});
  close();
}

void LibvirtTarget::reply(const Result<nlohmann::json>& answer) {
  for (auto& request : std::exchange(waiting_, {})) request.answer(answer);
}

void LibvirtTarget::abort(PeerRequest request, const std::string& reason) {
  if (record_.state == TargetState::owner) {
    return request.answer(fail("domain {} runs here", record_.domain.name));
  }
  if (record_.state == TargetState::refused) return request.answer(nlohmann::json::object());
  record_.reason = reason;
  close();
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config, std::vector<std::string>{"remove", record_.domain.uuid},
      [this, request](const Result<nlohmann::json>& removed) {
        if (!removed) return request.answer(std::unexpected(removed.error()));
        remove_disks(request);
      });
}

void LibvirtTarget::supersede() {
  if (record_.state != TargetState::preparing) return;
  record_.reason = "another move of the domain began";
  enter(TargetState::refused);
  close();
}

void LibvirtTarget::remove_disks(const PeerRequest& request) {
  program_ = std::make_unique<LibvirtProgram>(
      context_.loop, context_.config,
      std::vector<std::string>{"delete", record_.domain.uuid,
                               nlohmann::json(record_.new_disks).dump()},
      [this, request](const Result<nlohmann::json>& removed) {
        program_.reset();
        if (!removed) return request.answer(std::unexpected(removed.error()));
        enter(TargetState::refused);
        request.answer(nlohmann::json::object());
      });
}

void LibvirtTarget::close() {
  context_.loop.post([resume = std::shared_ptr<LibvirtProgram>(std::move(resume_)),
                      disks = std::shared_ptr<DiskTarget>(std::move(disks_)),
                      tunnel = std::shared_ptr<TunnelExit>(std::move(tunnel_)),
                      link = std::shared_ptr<TransferLink>(std::move(link_)),
                      directory = sockets_.directory]() mutable {
    disks.reset();
    link.reset();
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  });
}

nlohmann::json LibvirtTarget::describe() const {
  const TargetState state = record_.state;
  return {{"id", record_.id.text()},
          {"vm", std::string(kLibvirtPrefix) + record_.domain.name},
          {"tenant", kNoTenant},
          {"from", record_.from},
          {"to", context_.config.name},
          {"started", record_.started},
          {"by", record_.by},
          {"state", state == TargetState::owner     ? "done"
                    : state == TargetState::refused ? "aborted"
                                                    : "copying"},
          {"reason", record_.reason}};
}

std::vector<std::string> obstacles_here(store::Store& store, const libvirt::Domain& domain,
                                        const nlohmann::json& found) {
  std::vector<std::string> obstacles = texts_field(found, "obstacles");
  const auto left = store.find("libvirt-left", domain.uuid);
  const auto ours = left ? texts_field(*left, "disks") : std::vector<std::string>{};
  for (const std::string& path : texts_field(found, "there")) {
    if (std::ranges::count(ours, path) != 0) continue;
    obstacles.push_back(fmt::format(
        "{} is there already, and is not what the domain left when it moved away: remove it if "
        "nothing needs it; if both hosts share this storage, libvirt's own migration copies "
        "nothing",
        path));
  }
  for (const auto& disk : domain.disks) {
    std::error_code error;
    if (disk.is_read_only && !std::filesystem::exists(disk.path, error)) {
      obstacles.push_back(fmt::format(
          "{}, from which {} is read, is not there: copy it, or eject it", disk.path, disk.target));
    }
  }
  for (const std::string& bridge : domain.bridges) {
    if (!has_bridge(bridge)) {
      obstacles.push_back(fmt::format(
          "there is no bridge {}: ip link add {} type bridge, and join it to the source's with "
          "godwit port add --bridge and godwit connect",
          bridge, bridge));
    }
  }
  return obstacles;
}

}  // namespace godwit::agent

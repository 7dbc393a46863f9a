#include "agent/fabrics.hh"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>

#include "agent/records.hh"
#include "agent/source_record.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"

namespace godwit::agent {
namespace {

constexpr const char* kKind = "fabric";
constexpr Nanoseconds kExchangeTimeout = seconds(10);

}  // namespace

Fabrics::Fabrics(store::Store& store, Peers& peers, Events& events)
    : store_(store), peers_(peers), events_(events) {}

void Fabrics::start() {
  for (const auto& document : store_.list(kKind)) {
    const nlohmann::json& file = qemu::member(document.body, "file");
    auto fabric = read(file);
    if (!fabric) {
      spdlog::error("the fabric that was told is of no use: {}", fabric.error().text);
      continue;
    }
    version_ = qemu::unsigned_at(document.body, "version");
    file_ = file;
    fabric_ = *std::move(fabric);
  }
}

Result<std::shared_ptr<const translate::Fabric>> Fabrics::read(const nlohmann::json& file) {
  if (file.is_null()) return nullptr;
  auto fabric = translate::parse_fabric(file);
  if (fabric) return std::make_shared<const translate::Fabric>(*std::move(fabric));
  std::vector<std::string> texts;
  for (const Problem& each : fabric.error())
    texts.push_back(fmt::format("{}: {}", each.where, each.text));
  return fail("the fabric: {}", fmt::join(texts, "; "));
}

bool Fabrics::is_newer(std::uint64_t version, const nlohmann::json& file) const {
  if (version != version_) return version > version_;
  return file != file_ && file.dump() > file_.dump();  // of two at once all take the same
}

Result<> Fabrics::take(std::uint64_t version, const nlohmann::json& file) {
  auto fabric = read(file);
  if (!fabric) return std::unexpected(fabric.error());
  if (auto done = store_.record(kKind, kKind, {{"version", version}, {"file", file}}); !done) {
    return done;
  }
  version_ = version;
  file_ = file;
  fabric_ = *std::move(fabric);
  events_.publish("fabric", {{"version", version}});
  for (const auto& peer : peers_.up()) exchange(peer);
  return {};
}

Result<nlohmann::json> Fabrics::set(const nlohmann::json& file) {
  if (file == file_) return describe();
  const auto now = static_cast<std::uint64_t>(os::wall_clock().count());
  if (auto done = take(std::max(now, version_ + 1), file); !done) {
    return std::unexpected(done.error());
  }
  return describe();
}

nlohmann::json Fabrics::describe() const { return {{"version", version_}, {"file", file_}}; }

void Fabrics::on_session_up(const std::string& peer) {
  if (version_ != 0) exchange(peer);
}

// Each tells what it has, and gets what is newer.
void Fabrics::exchange(const std::string& peer) {
  if (peers_.protocol(peer) < kRulesProtocol) return;
  peers_.request(
      peer, "fabric.exchange", describe(),
      [this, peer](const Result<nlohmann::json>& reply) {
        if (!reply) return;  // the next session does it
        const std::uint64_t version = qemu::unsigned_at(*reply, "version");
        const nlohmann::json& file = qemu::member(*reply, "file");
        if (!is_newer(version, file)) return;
        const auto taken = take(version, file);
        if (!taken) spdlog::warn("host {}: {}", peer, taken.error().text);
      },
      kExchangeTimeout);
}

void Fabrics::on_request(const PeerRequest& request, const nlohmann::json& body) {
  const std::uint64_t version = qemu::unsigned_at(body, "version");
  const nlohmann::json& file = qemu::member(body, "file");
  if (is_newer(version, file)) {
    if (auto taken = take(version, file); !taken)
      return request.answer(std::unexpected(taken.error()));
  }
  request.answer(describe());
}

}  // namespace godwit::agent

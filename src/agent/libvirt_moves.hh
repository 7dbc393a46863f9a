#pragma once
// All moves of libvirt domains that this host takes part in: asked for by the API, answered to
// peers, found again in the journal after a restart. A part of Migrations. Control thread.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/host_search.hh"
#include "agent/libvirt_source.hh"
#include "agent/libvirt_target.hh"
#include "http/caller.hh"
#include "http/responder.hh"

namespace godwit::agent {

class LibvirtMoves final {
 public:
  LibvirtMoves(const SourceMove::Context& context, HostSearch::HostsCalled hosts_called);

  // Reads the journal and goes on where it ended.
  void start();

  // API. Whether a request to move is for a domain, alone or among others.
  static bool is_for_one(const nlohmann::json& request);
  void add(const nlohmann::json& request, const http::Caller& caller, http::Responder responder);
  std::vector<nlohmann::json> list() const;
  std::optional<nlohmann::json> show(const MigrationId& id) const;
  LibvirtSource* find_source(const MigrationId& id) const;
  // Its host.
  std::optional<std::string> source_of(const MigrationId& id) const;

  // Peers.
  void on_request(PeerRequest request, const nlohmann::json& body);
  void on_session_up(const std::string& peer);
  void doubt_lanes(const std::string& peer);
  // True: it is one of ours.
  bool use_lane(const std::string& peer, const stream::Hello& hello,
                std::unique_ptr<os::ByteStream>& lane, BytesView early);

 private:
  struct Wanted;
  using Ask = std::shared_ptr<Wanted>;
  Result<Ask> want(const nlohmann::json& request, const http::Caller& caller) const;
  void described(const Ask& wanted, const Result<nlohmann::json>& found);
  void preflight(const Ask& wanted, const std::string& host, HostSearch::Checked checked);
  void conclude(const Ask& wanted, Result<HostSearch::Outcome> found);
  nlohmann::json estimate(const Ask& wanted, const Findings& findings) const;
  bool is_moving(const std::string& uuid) const;
  void answer_preflight(PeerRequest request, const nlohmann::json& body);
  void prepare_target(PeerRequest request, const MigrationId& id, const nlohmann::json& body);

  const SourceMove::Context context_;
  HostSearch search_;
  std::map<MigrationId, std::unique_ptr<LibvirtSource>> sources_;
  std::map<MigrationId, std::unique_ptr<LibvirtTarget>> targets_;
  std::map<std::uint64_t, std::unique_ptr<LibvirtProgram>> looks_;  // for requests
  std::uint64_t next_look_ = 1;
};

}  // namespace godwit::agent

#include "agent/host_search.hh"

#include <algorithm>

namespace godwit::agent {

namespace {

constexpr Nanoseconds kPatience = seconds(5);  // a session that ended is dialled anew within 3 s

}  // namespace

Result<std::vector<std::string>> HostSearch::candidates(const std::string& to) const {
  if (to == peers_.self()) return fail("it is on host {} already", to);
  auto hosts = hosts_called_(to);
  if (hosts.empty()) return fail("there is no host or site '{}'; see godwit host ls", to);
  if (std::ranges::count(hosts, peers_.self()) != 0) {
    return fail("it is in site {} already", to);
  }
  std::ranges::reverse(hosts);
  return hosts;
}

void HostSearch::start(const std::string& to, Preflight preflight, Done done) {
  auto hosts = candidates(to);
  if (!hosts) return done(std::unexpected(hosts.error()));
  auto search = std::make_shared<Search>(Search{.to = to,
                                                .preflight = std::move(preflight),
                                                .hosts = *std::move(hosts),
                                                .done = std::move(done)});
  const auto is_up = [this](const auto& host) { return peers_.is_up(host); };
  if (std::ranges::any_of(search->hosts, is_up)) return ask(search);
  const std::uint64_t key = next_++;
  search->patience =
      loop_.after(kPatience, [this, key] { loop_.post([this, key] { give_up(key); }); });
  waiting_[key] = std::move(search);
}

void HostSearch::on_session_up(const std::string& peer) {
  std::vector<std::shared_ptr<Search>> found;
  std::erase_if(waiting_, [&](const auto& entry) {
    if (std::ranges::count(entry.second->hosts, peer) == 0) return false;
    found.push_back(entry.second);
    return true;
  });
  for (const auto& search : found) ask(search);
}

void HostSearch::give_up(std::uint64_t key) {
  const auto node = waiting_.extract(key);
  if (node.empty()) return;  // a session came up at the last moment
  Search& search = *node.mapped();
  search.done(fail("{} '{}' cannot be reached: no session came up in {}; see godwit host ls",
                   search.hosts.front() == search.to ? "host" : "site", search.to,
                   to_text(kPatience)));
}

void HostSearch::ask(const std::shared_ptr<Search>& search) {
  std::erase_if(search->hosts, [this](const auto& host) { return !peers_.is_up(host); });
  Outcome& outcome = search->outcome;
  if (search->hosts.empty()) {
    if (outcome.host.empty()) return search->done(fail("'{}' is gone again", search->to));
    return search->done(std::move(outcome));
  }
  outcome.host = std::move(search->hosts.back());
  search->hosts.pop_back();
  search->preflight(outcome.host, [this, search](Result<Findings> findings) {
    if (!findings) return search->done(std::unexpected(findings.error()));
    if (all_ok(findings->checks)) {
      return search->done(Outcome{search->outcome.host, *std::move(findings)});
    }
    std::ranges::move(findings->checks, std::back_inserter(search->outcome.findings.checks));
    ask(search);
  });
}

}  // namespace godwit::agent

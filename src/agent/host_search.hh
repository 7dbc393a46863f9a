#pragma once
// The host that takes a vm: of those that `--to` names, the first that can be reached and that
// preflight does not refuse. One that has just joined, or whose agent was just restarted, is waited
// for.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "agent/findings.hh"
#include "agent/peers.hh"
#include "base/result.hh"
#include "os/loop.hh"

namespace godwit::agent {

class HostSearch final {
 public:
  struct Outcome {
    std::string host;   // the one that takes the vm, or the last that was asked
    Findings findings;  // of that host; where none takes it, the checks of all that were asked
  };
  using Done = std::move_only_function<void(Result<Outcome>)>;
  using Checked = std::function<void(Result<Findings>)>;

  // The host of that name, or all hosts of the site of that name: known, not necessarily up.
  using HostsCalled = std::function<std::vector<std::string>(const std::string& name)>;
  // Whether the host can take the vm; an error ends the search.
  using Preflight = std::function<void(const std::string& host, Checked)>;

  HostSearch(os::Loop& loop, const Peers& peers, HostsCalled hosts_called)
      : loop_(loop), peers_(peers), hosts_called_(std::move(hosts_called)) {}

  // `done` is called once, now or later.
  void start(const std::string& to, Preflight preflight, Done done);
  void on_session_up(const std::string& peer);

 private:
  struct Search {
    std::string to;
    Preflight preflight;
    std::vector<std::string> hosts;  // not asked yet, the next one last
    Outcome outcome{};               // so far
    Done done;
    os::Loop::Timer patience{};
  };

  Result<std::vector<std::string>> candidates(const std::string& to) const;
  void ask(const std::shared_ptr<Search>& search);
  void give_up(std::uint64_t key);

  os::Loop& loop_;
  const Peers& peers_;
  HostsCalled hosts_called_;
  std::map<std::uint64_t, std::shared_ptr<Search>> waiting_;  // for a session
  std::uint64_t next_ = 1;
};

}  // namespace godwit::agent

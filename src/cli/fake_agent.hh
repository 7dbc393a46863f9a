#pragma once
// A scripted agent for tests: a real http::Server on a unix socket in its own thread. It answers
// what it was told to and keeps what it was asked.
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/test_directory.hh"
#include "cli/app.hh"
#include "http/server.hh"
#include "os/clock.hh"

namespace godwit::cli {

class FakeAgent final {
 public:
  struct Asked {
    std::string what;  // "POST /v1/wires"
    json body;
  };

  FakeAgent();
  ~FakeAgent();
  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;

  // Before start(): the answer to `method path` (no patterns). Several for the same request are
  // given one after the other, the last one for ever.
  void answer(const std::string& what, const json& body, int status = 200);
  // Server-sent events for a path: sent at once, then the stream ends, or stays open if told.
  void events(const std::string& path, std::vector<std::pair<std::string, json>> events,
              bool stays_open = false);
  // Calls `handler` (in the agent's thread) when `what` is asked, before its answer is chosen.
  void when(const std::string& what, std::function<void()> handler);
  void start();

  std::vector<Asked> asked() const;
  // The body of the only request `what`.
  json body_of(const std::string& what) const;
  // For handlers of when(): an event to every open stream.
  void push(const std::string& name, const json& data);
  const std::string& socket() const { return socket_; }

 private:
  void serve(const http::Request& request, http::Responder responder);

  const TestDirectory directory_;
  const std::string socket_ = (directory_ / "agent.sock").string();
  std::map<std::string, std::vector<http::Response>> answers_;
  std::map<std::string, std::pair<std::vector<std::pair<std::string, json>>, bool>> events_;
  std::map<std::string, std::function<void()>> handlers_;
  mutable std::mutex asked_mutex_;
  std::vector<Asked> asked_;  // guarded by asked_mutex_
  os::Loop loop_;
  http::Server server_{loop_};
  std::vector<std::shared_ptr<http::EventStream>> open_;
  std::thread thread_;
};

// Runs the tool in this process against an agent, or against none.
struct Ran {
  int status = -1;
  std::string out, err;
};
Ran run_cli(const std::string& socket, std::vector<std::string> arguments, bool terminal = false);

}  // namespace godwit::cli

#include "cli/fake_agent.hh"

#include <gtest/gtest.h>
#include <pthread.h>

#include <csignal>

namespace godwit::cli {

FakeAgent::FakeAgent() {
  // Patterns by depth: the script decides by the whole path.
  for (const char* method : {"GET", "POST", "DELETE"}) {
    std::string pattern;
    for (const char* segment : {"/{a}", "/{b}", "/{c}", "/{d}"}) {
      pattern += segment;
      server_.route(method, pattern,
                    [this](const http::Request& request, http::Responder responder) {
                      serve(request, std::move(responder));
                    });
    }
  }
}

FakeAgent::~FakeAgent() {
  if (thread_.joinable()) {
    loop_.stop();
    thread_.join();
  }
}

void FakeAgent::answer(const std::string& what, const json& body, int status) {
  answers_[what].push_back(http::json_response(status, body));
}

void FakeAgent::events(const std::string& path, std::vector<std::pair<std::string, json>> events,
                       bool stays_open) {
  events_[path] = {std::move(events), stays_open};
}

void FakeAgent::when(const std::string& what, std::function<void()> handler) {
  handlers_[what] = std::move(handler);
}

void FakeAgent::start() {
  server_.listen_unix(socket_, 0600);
  // A Ctrl-C that a test sends to the process must reach the thread that runs the tool.
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, &before);
  thread_ = std::thread([this] { loop_.run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void FakeAgent::serve(const http::Request& request, http::Responder responder) {
  const std::string what = request.method + " " + request.path;
  {
    const std::lock_guard lock(asked_mutex_);
    asked_.push_back({what, json::parse(request.body, nullptr, false)});
  }
  if (const auto found = events_.find(request.path); found != events_.end()) {
    const auto stream = responder.events();
    for (const auto& [name, data] : found->second.first) stream->push(name, data);
    if (found->second.second) open_.push_back(stream);
  }
  if (const auto found = handlers_.find(what); found != handlers_.end()) found->second();
  const auto found = answers_.find(what);
  if (found == answers_.end()) return responder.error(404, "there is no " + request.path);
  auto& answers = found->second;
  responder.send(answers.front());
  if (answers.size() > 1) answers.erase(answers.begin());
}

std::vector<FakeAgent::Asked> FakeAgent::asked() const {
  const std::lock_guard lock(asked_mutex_);
  return asked_;
}

json FakeAgent::body_of(const std::string& what) const {
  json body;
  int count = 0;
  for (const Asked& one : asked()) {
    if (one.what == what) body = one.body, ++count;
  }
  EXPECT_EQ(count, 1) << what;
  return body;
}

void FakeAgent::push(const std::string& name, const json& data) {
  for (const auto& stream : open_) stream->push(name, data);
}

Ran run_cli(const std::string& socket, std::vector<std::string> arguments, bool terminal) {
  std::ostringstream out, err;
  os::FakeClock clock;
  Io io{.out = out, .err = err, .clock = clock, .err_is_terminal = terminal};
  if (!socket.empty()) arguments.insert(arguments.begin(), {"--socket", socket});
  const ExitStatus status = run(std::move(arguments), io);
  return {.status = static_cast<int>(status), .out = out.str(), .err = err.str()};
}

}  // namespace godwit::cli

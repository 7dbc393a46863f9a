#include "cli/fleet_state.hh"

#include <fmt/ranges.h>

#include <future>
#include <map>
#include <mutex>

#include "topology/actual.hh"

namespace godwit::cli {
namespace {

using topology::Step;

// Of one request: within what goes through a session, and often enough to be told of.
constexpr std::size_t kMostSteps = 512;
constexpr std::size_t kMostBytes = 256 * 1024;

// What one host answers to these requests.
json ask_batch(const Context& context, const std::string& host, const json& requests) {
  const auto reply = context.client_at(host).request("POST", "/v1/batch", {{"requests", requests}});
  if (!reply) throw Failure(ExitStatus::failed, reply.error().text);
  if (!reply->ok()) throw refusal(*reply);
  if (!reply->body.is_array() || reply->body.size() != requests.size()) {
    throw Failure(ExitStatus::failed,
                  fmt::format("host {} answers with what is not understood", host));
  }
  return reply->body;
}

constexpr std::array kLists = {"components", "ports", "vms", "wires"};

json ask_host(const Context& context, const std::string& host) {
  json requests = json::array();
  for (const char* list : kLists) {
    requests.push_back({{"method", "GET"}, {"path", std::string("/v1/") + list}});
  }
  const json answers = ask_batch(context, host, requests);
  json all = json::object();
  for (std::size_t i = 0; i < kLists.size(); ++i) {
    const json& body = answers[i].at("body");
    if (answers[i].at("status") != 200) {
      throw refusal({.status = answers[i].at("status").get<int>(), .body = body});
    }
    all[kLists[i]] = body;
  }
  return all;
}

// As many as fit into one request.
std::vector<const Step*> next_of(const std::vector<const Step*>& steps, std::size_t from) {
  std::vector<const Step*> chunk;
  std::size_t bytes = 0;
  while (from < steps.size() && chunk.size() < kMostSteps) {
    bytes += steps[from]->request.dump().size();
    if (bytes > kMostBytes && !chunk.empty()) break;
    chunk.push_back(steps[from++]);
  }
  return chunk;
}

std::vector<Outcome> take(const Context& context, const std::vector<const Step*>& steps) {
  std::vector<Outcome> outcomes;
  try {
    json requests = json::array();
    for (const Step* step : steps) requests.push_back(step->request);
    const json answers = ask_batch(context, steps.front()->host, requests);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const http::Reply reply{.status = answers[i].at("status").get<int>(),
                              .body = answers[i].at("body")};
      outcomes.push_back({steps[i], reply.ok() ? "" : refusal(reply).what()});
    }
  } catch (const std::exception& error) {
    outcomes.clear();
    for (const Step* step : steps) outcomes.push_back({step, error.what()});
  }
  return outcomes;
}

}  // namespace

topology::Actual ask_fleet(const Context& context) {
  const json hosts = context.fetch("/v1/hosts");
  std::map<std::string, std::future<json>> asked;
  for (const json& host : hosts) {
    if (host.value("state", "down") == "down") continue;
    const std::string name = host.value("name", "");
    asked[name] =
        std::async(std::launch::async, [&context, name] { return ask_host(context, name); });
  }
  std::map<std::string, json> answers;
  for (auto& [name, answer] : asked) answers[name] = answer.get();
  return topology::actual(hosts, answers);
}

std::vector<Outcome> take_steps(const Context& context, const std::vector<Step>& steps,
                                const std::function<void(const std::vector<Outcome>&)>& told) {
  std::vector<Outcome> all;
  std::mutex mutex;  // of all, and of told
  const auto take_all = [&](const std::vector<const Step*>& of_host) {
    for (std::size_t next = 0; next < of_host.size();) {
      const auto chunk = next_of(of_host, next);
      next += chunk.size();
      const auto outcomes = take(context, chunk);
      const std::scoped_lock lock(mutex);
      all.insert(all.end(), outcomes.begin(), outcomes.end());
      told(outcomes);
    }
  };
  std::map<topology::Phase, std::map<std::string, std::vector<const Step*>>> phases;
  for (const Step& step : steps) phases[step.phase][step.host].push_back(&step);
  for (const auto& [phase, hosts] : phases) {
    std::vector<std::future<void>> running;
    for (const auto& [host, of_host] : hosts) {
      running.push_back(std::async(std::launch::async, take_all, of_host));
    }
    for (auto& each : running) each.get();
  }
  return all;
}

void take_all(const Context& context, const std::vector<Step>& steps) {
  std::vector<std::string> failed;
  for (const auto& [step, error] : take_steps(context, steps, [](const auto&) {})) {
    if (!error.empty()) failed.push_back(fmt::format("{}: {}", step->what, error));
  }
  if (failed.empty()) return;
  throw Failure(ExitStatus::failed,
                fmt::format("{}\nrun it again when that is mended", fmt::join(failed, "\n")));
}

}  // namespace godwit::cli

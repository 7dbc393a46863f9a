#include "agent/fleet_rules.hh"

#include <map>
#include <memory>

namespace godwit::agent {
namespace {

using nlohmann::json;

constexpr Nanoseconds kRulesTimeout = seconds(5);

// Of each host, as they come.
struct Answers {
  FleetRules::Done done{};
  std::size_t awaited = 0;
  std::map<std::string, Result<json>> by_host{};

  void take(const std::string& host, Result<json> answer) {
    by_host[host] = std::move(answer);
    if (--awaited == 0) tell();
  }

 private:
  void tell() const {
    json hosts = json::array(), silent = json::array();
    for (const auto& [host, answer] : by_host) {
      json one = answer && answer->is_object() ? *answer : json::object();
      one["host"] = host;
      if (!answer) one["reason"] = answer.error().text;
      (answer ? hosts : silent).push_back(std::move(one));
    }
    done({{"hosts", hosts}, {"silent", silent}});
  }
};

}  // namespace

void FleetRules::ask_all(const std::string& method, const json& body, Done done) {
  const std::vector<std::string> up = peers_.up();
  const auto answers = std::make_shared<Answers>(Answers{.done = std::move(done)});
  answers->awaited = up.size() + 1;
  for (const std::string& host : hosts_) {
    if (host == peers_.self() || peers_.is_up(host)) continue;
    answers->by_host[host] = fail("no session with host {}: see godwit host ls", host);
  }
  const auto take = [answers](const std::string& host) {
    return [answers, host](Result<json> answer) { answers->take(host, std::move(answer)); };
  };
  for (const std::string& host : up) {
    peers_.request(host, method, body, take(host), kRulesTimeout);
  }
  own_.on_request({.peer = peers_.self(), .method = method, .answer = take(peers_.self())}, body);
}

void FleetRules::list(Done done) {
  ask_all("rule.list", json::object(), [done = std::move(done)](const json& answers) {
    json rules = json::array();
    for (const json& host : answers["hosts"]) {
      for (json rule : host.value("rules", json::array())) {
        if (!rule.is_object()) continue;
        rule["host"] = host["host"];
        rules.push_back(std::move(rule));
      }
    }
    done({{"rules", rules}, {"silent", answers["silent"]}});
  });
}

void FleetRules::verify(Done done) { ask_all("rule.verify", json::object(), std::move(done)); }

void FleetRules::repair(Done done) { ask_all("rule.repair", json::object(), std::move(done)); }

void FleetRules::forget(const std::string& guest, Done done) {
  ask_all("rule.forget", {{"guest", guest}}, std::move(done));
}

}  // namespace godwit::agent

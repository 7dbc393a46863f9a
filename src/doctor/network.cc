// The agent, its port, and the way to other hosts.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/result.hh"
#include "doctor/examine.hh"
#include "doctor/judge.hh"
#include "http/client.hh"
#include "os/endpoint.hh"
#include "os/netlink.hh"
#include "os/own_address.hh"

namespace godwit::doctor {
namespace {

constexpr int kConnectTimeMs = 3000;  // a few round trips around the world
constexpr const char* kStart = "systemctl start godwitd; journalctl -u godwitd says why it ended";

struct Agent {
  bool answers = false;
  nlohmann::json host;
};

Agent ask_agent(const std::string& socket) {
  const auto reply = http::Client(socket).request("GET", "/v1/host");
  if (!reply || !reply->ok() || !reply->body.is_object()) return {};
  return {.answers = true, .host = reply->body};
}

std::string text_in(const nlohmann::json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

Finding judge_agent(const Agent& agent, const std::string& socket) {
  if (agent.answers) {
    return ok("agent", fmt::format("godwitd {} runs as host {}", text_in(agent.host, "version"),
                                   text_in(agent.host, "name")));
  }
  if (::access(socket.c_str(), F_OK) == 0 && ::access(socket.c_str(), R_OK | W_OK) != 0) {
    return warn("agent", errno_text("open " + socket), "sudo godwit doctor");
  }
  return warn("agent", fmt::format("no agent answers at {}", socket), kStart);
}

// Whether the port can be had: 0, or the errno of bind().
int try_port(int type, std::uint16_t port) {
  const os::Fd fd(::socket(AF_INET6, type | SOCK_CLOEXEC, 0));
  if (!fd) return 0;  // no IPv6: the IPv4 port is not shared either
  const int on = 1;
  ::setsockopt(fd.number(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);  // as the agent does
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(port);
  return ::bind(fd.number(), reinterpret_cast<sockaddr*>(&any), sizeof any) == 0 ? 0 : errno;
}

// Only an agent of a fleet has the port open.
Finding look_at_port(const Agent& agent, std::uint16_t port) {
  const int tcp = try_port(SOCK_STREAM, port);
  const int udp = try_port(SOCK_DGRAM, port);
  if (agent.answers && !text_in(agent.host, "fleet").empty()) {
    if (tcp == EADDRINUSE && udp == EADDRINUSE) {
      return ok("port", fmt::format("TCP and UDP {} are the agent's", port));
    }
    return failed("port", fmt::format("the agent runs and does not hold port {}", port),
                  "give the doctor the agent's --port, or restart the agent");
  }
  if (tcp == 0 && udp == 0) return ok("port", fmt::format("TCP and UDP {} are free", port));
  return failed("port",
                fmt::format("{} port {}: {}", tcp != 0 ? "TCP" : "UDP", port,
                            std::strerror(tcp != 0 ? tcp : udp)),
                fmt::format("`ss -tulpn sport = :{}` shows who has it; stop that, or choose "
                            "another port for all agents",
                            port));
}

Finding look_at_mtu(const os::OwnAddress& own, unsigned path_mtu) {
  if (own.interface.empty()) {
    return warn("mtu", "no interface leads to other hosts", "configure the network");
  }
  return judge_mtu(own.interface, os::Netlink().link(own.interface).mtu, path_mtu);
}

std::optional<std::uint64_t> number_in(const char* path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// Empty when the connection was made; else why not.
std::string try_connect(const os::Endpoint& to) {
  const auto attempt = fmt::format("connect to {}", to.text());
  const os::Fd fd(::socket(to.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_storage address{};
  const socklen_t length = to.to_sockaddr(address, to.family());
  if (!fd) return errno_text(attempt);
  if (::connect(fd.number(), reinterpret_cast<sockaddr*>(&address), length) == 0) return {};
  if (errno != EINPROGRESS) return errno_text(attempt);
  pollfd poll{.fd = fd.number(), .events = POLLOUT, .revents = 0};
  if (::poll(&poll, 1, kConnectTimeMs) != 1) return attempt + ": no answer";
  socklen_t size = sizeof errno;
  ::getsockopt(fd.number(), SOL_SOCKET, SO_ERROR, &errno, &size);
  return errno == 0 ? std::string() : errno_text(attempt);
}

// TCP says whether the port is open; that UDP is open too shows only in a session's wires.
Finding reach(const std::string& text, std::uint16_t default_port) {
  const std::string name = fmt::format("reach {}", text);
  const auto at = os::parse_host_port(text, default_port);
  if (!at) return failed(name, at.error().text, "write ADDRESS or ADDRESS:PORT");
  const auto found = os::resolve(at->host, at->port);
  if (!found) return failed(name, found.error().text, "name the host by its address");
  std::string failure;
  for (const auto& to : *found) {
    failure = try_connect(to);
    if (failure.empty()) return ok(name, fmt::format("TCP {} answers", to.text()));
  }
  return failed(name, failure,
                fmt::format("is godwitd running there and in a fleet? open TCP and UDP {} in the "
                            "firewalls and security groups between",
                            at->port));
}

void add_sessions(const Agent& agent, Findings& findings) {
  const auto sessions = agent.host.find("sessions");
  if (!agent.answers || sessions == agent.host.end() || !sessions->is_array()) return;
  for (const auto& session : *sessions) {
    const std::string name = fmt::format("session {}", text_in(session, "peer"));
    if (text_in(session, "state") == "up") {
      findings.push_back(ok(name, fmt::format("up, {}", text_in(session, "address"))));
    } else {
      findings.push_back(warn(name, fmt::format("down: {}", text_in(session, "error")),
                              "start that host's agent; godwit doctor --reach ADDRESS tries the "
                              "way there"));
    }
  }
}

}  // namespace

Findings examine_network(const Options& options) {
  const std::string socket =
      options.socket.empty() ? (options.run_dir / "godwitd.sock").string() : options.socket;
  const Agent agent = ask_agent(socket);
  const os::OwnAddress own = os::own_address();
  const std::string address = agent.answers ? text_in(agent.host, "address") : own.address;
  Findings findings = {judge_agent(agent, socket), look_at_port(agent, options.port),
                       judge_address(address), look_at_mtu(own, options.path_mtu),
                       judge_conntrack(number_in("/proc/sys/net/netfilter/nf_conntrack_count"),
                                       number_in("/proc/sys/net/netfilter/nf_conntrack_max"))};
  add_sessions(agent, findings);
  for (const auto& host : options.reach) findings.push_back(reach(host, options.port));
  return findings;
}

}  // namespace godwit::doctor

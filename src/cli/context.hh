#pragma once
// What every command of `godwit` has: where to print, which agent to ask, and how it ends.
#include <iosfwd>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "http/client.hh"
#include "os/clock.hh"

namespace godwit::cli {

using nlohmann::json;

// Part of the interface, see godwit(1).
enum class ExitStatus {
  done = 0,
  failed = 1,
  usage = 2,
  refused = 3,    // by preflight: nothing was changed
  aborted = 4,    // the source goes on
  undecided = 5,  // or stuck; the operator is needed: godwit migration resolve
  differs = 6,    // the network is not as the file says: godwit diff
};

// Ends a command; the text goes to standard error.
class Failure final : public std::runtime_error {
 public:
  Failure(ExitStatus status, const std::string& text) : std::runtime_error(text), status_(status) {}
  ExitStatus status() const { return status_; }

 private:
  ExitStatus status_;
};

// The process's edges; tests give their own.
struct Io {
  std::ostream& out;
  std::ostream& err;
  const os::Clock& clock;
  bool err_is_terminal = false;
  std::size_t columns = 80;  // of that terminal
};

struct Context {
  Io& io;
  std::string host;      // -H or GODWIT_HOST
  std::string at;        // --at or GODWIT_AT: the host to act on, through that agent
  std::string socket;    // --socket
  std::string identity;  // --identity or GODWIT_IDENTITY: a file
  bool as_json = false;
  ExitStatus status = ExitStatus::done;

  // The client of the chosen agent. Fails for a remote one without an identity.
  http::Client client() const;
  // Of that agent too, for what another host does.
  http::Client client_at(const std::string& other) const;
  bool is_remote() const;

  // Requests that end the command when they are refused or nobody answers.
  json fetch(std::string_view path) const;
  json post(std::string_view path, const json& body = json::object()) const;
  json remove(std::string_view path, const json& body = nullptr) const;

  void print_json(const json& value) const;
  // One line to standard output for a person; nothing with --json.
  void say(std::string_view line) const;
};

// The failure that a refusing answer stands for: its text, its failed checks, its exit status.
Failure refusal(const http::Reply& reply);

// "/v1/vms/" and a name that may need escapes.
std::string path_of(std::string_view collection, std::string_view name,
                    std::string_view action = {});

}  // namespace godwit::cli

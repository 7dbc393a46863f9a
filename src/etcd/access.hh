#pragma once
// How an etcd cluster is reached. Secrets are files, read when they are needed; none is logged.
#include <filesystem>
#include <string>
#include <vector>

#include "base/units.hh"

namespace godwit::etcd {

struct Access {
  std::vector<std::string> endpoints{};  // "https://10.9.0.7:2379"
  std::filesystem::path ca{};  // who signed the servers' certificates; empty: the system's
  std::filesystem::path certificate{}, key{};  // of this client; empty: it has none
  std::string user{};                          // empty: nobody
  std::filesystem::path password{};            // of that user
  Nanoseconds timeout = seconds(5);            // of one request to one endpoint
};

}  // namespace godwit::etcd

#pragma once
// One conversation with an etcd cluster's JSON gateway, over libcurl: the endpoint that answered
// last first, else the others in turn; the connection stays open. Blocks: for a thread of its own.
#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.hh"
#include "base/units.hh"
#include "etcd/access.hh"

namespace godwit::etcd {

class Gateway final {
 public:
  // A request that is under way when `stops` becomes true ends within a second.
  Gateway(Access access, const std::atomic<bool>& stops);
  ~Gateway();

  // The answer to `body` at `path` ("/v3/kv/range"); with a user, authenticated.
  Result<nlohmann::json> call(const std::string& path, const nlohmann::json& body);

 private:
  struct Reply {
    long status = 0;
    nlohmann::json body{};
  };
  struct Curl;

  Result<Reply> ask_any(const std::string& path, const std::string& body);
  Result<Reply> ask(const std::string& endpoint, const std::string& path, const std::string& body);
  Result<> authenticate();
  void set_access();

  const Access access_;
  std::unique_ptr<Curl> curl_;
  std::size_t preferred_ = 0;  // of the endpoints
  std::string token_;
};

}  // namespace godwit::etcd

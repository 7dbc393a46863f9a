#pragma once
// Requests and answers of etcd's JSON gateway (etcd 3.4's dev-guide/api_grpc_gateway): protobuf's
// JSON, in which bytes are base64, 64-bit numbers are texts, and what is zero, false or empty is
// absent. Answers are a stranger's: what is not understood is an error, never an exception.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "etcd/keys.hh"

namespace godwit::etcd {

// Of /v3/kv/txn; several keys are read at one revision.
nlohmann::json read_request(const std::vector<std::string>& keys);
nlohmann::json write_request(const Write& write);
// Of /v3/kv/range. The prefix is not empty.
nlohmann::json list_request(const std::string& prefix, std::size_t limit);
// Of /v3/auth/authenticate
nlohmann::json authenticate_request(const std::string& user, const std::string& password);

Result<Found> read_answer(const nlohmann::json& answer);
Result<Found> list_answer(const nlohmann::json& answer);
Result<bool> write_answer(const nlohmann::json& answer);
Result<std::string> authenticate_answer(const nlohmann::json& answer);  // the token
// What an answer says that is none: one line of printable characters, cut; empty: it says nothing.
std::string error_text(const nlohmann::json& answer);

}  // namespace godwit::etcd

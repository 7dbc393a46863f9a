#pragma once
// Files of this host that callers of the API name.
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>

#include "agent/config.hh"
#include "base/result.hh"
#include "http/caller.hh"

namespace godwit::agent {

// The agent reads them as root: a remote user names files of the image directory only (one
// tenant's user: of the tenant's part), or any file of the host could be read inside a vm. `keys`:
// the fields of the body that are paths.
Result<> check_files(const Config& config, const http::Caller& caller, const nlohmann::json& body,
                     std::initializer_list<const char*> keys);

// A URI of a vm's disk has this host's QEMU speak to any server: one tenant's user gives none.
Result<> check_volumes(const http::Caller& caller, const nlohmann::json& body);

}  // namespace godwit::agent

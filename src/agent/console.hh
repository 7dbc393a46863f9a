#pragma once
// A vm's serial console over an upgraded HTTP connection: bytes both ways until either side ends.
#include <string>

#include "http/responder.hh"
#include "os/loop.hh"

namespace godwit::agent {

void open_console(os::Loop& loop, const std::string& socket_path, http::Responder responder);

}  // namespace godwit::agent

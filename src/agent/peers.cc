#include "agent/peers.hh"

#include <nlohmann/json.hpp>

namespace godwit::agent {

PeerRequest peer_request(const session::Session& session, const std::string& method,
                         session::Responder responder) {
  auto shared = std::make_shared<session::Responder>(std::move(responder));
  return {.peer = session.peer(),
          .method = method,
          .answer = [shared](const Result<nlohmann::json>& answer) {
            if (answer) return shared->reply(*answer);
            shared->fail(answer.error().text);
          }};
}

}  // namespace godwit::agent

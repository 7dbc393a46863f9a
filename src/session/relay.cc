#include "session/relay.hh"

#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "base/id.hh"
#include "os/random.hh"
#include "session/json_body.hh"

namespace godwit::session {
namespace {

constexpr const char* kCall = "relay.call";
constexpr const char* kAnswer = "relay.answer";
constexpr const char* kLeg = "relay.leg";
constexpr std::size_t kTicketBytes = 16;

std::string new_ticket() {
  std::array<std::byte, kTicketBytes> raw;
  os::fill_random(raw);
  return to_hex(raw);
}

bool is_ticket(const std::string& text) { return from_hex(text).size() == kTicketBytes; }

}  // namespace

Relay::Relay(os::Loop& loop, std::string self, Hooks hooks)
    : loop_(loop), self_(std::move(self)), hooks_(std::move(hooks)) {}

void Relay::call(const std::string& relay, const std::string& target, Leg leg) {
  Session* session = hooks_.direct_session(relay);
  if (session == nullptr) return leg(fail("no session with {}", relay));
  const Ticket ticket = new_ticket();
  const bool we_dial = session->is_initiator();
  auto shared = std::make_shared<Leg>(std::move(leg));
  const auto once = [shared](Result<std::unique_ptr<TlsStream>> result) {
    if (auto done = std::exchange(*shared, nullptr)) done(std::move(result));
  };
  if (!we_dial) await(relay, ticket, once);  // before they can dial
  session->request(
      relay == target ? kAnswer : kCall, {{"to", target}, {"from", self_}, {"ticket", ticket}},
      [this, relay, ticket, we_dial, once](Result<nlohmann::json> answer) {
        if (!answer) {
          awaited_.erase({relay, ticket});
          once(std::unexpected(answer.error()));
        } else if (we_dial) {
          dial(relay, ticket, once);
        }
      },
      kLegTimeout);
}

// The leg with `ticket` will be dialled by `peer`.
void Relay::await(const std::string& peer, const Ticket& ticket, Leg leg) {
  if (awaited_.size() >= kMaxLegs) return leg(fail("too many relayed connections are being made"));
  Awaited& awaited = awaited_[{peer, ticket}];
  awaited.leg = std::move(leg);
  awaited.timeout = loop_.after(kLegTimeout, [this, peer, ticket] {
    settle(peer, ticket, fail("{} did not dial back within {}", peer, to_text(kLegTimeout)));
  });
}

void Relay::settle(const std::string& peer, const Ticket& ticket,
                   Result<std::unique_ptr<TlsStream>> leg) {
  auto node = awaited_.extract({peer, ticket});
  if (!node.empty()) node.mapped().leg(std::move(leg));
}

void Relay::dial(const std::string& peer, const Ticket& ticket, Leg leg) {
  hooks_.dial(
      peer, [ticket, leg = std::move(leg)](Result<std::unique_ptr<TlsStream>> stream) mutable {
        if (!stream) return leg(std::move(stream));
        const std::string body = json_text({{"ticket", ticket}});
        Bytes frame;
        encode({.kind = FrameKind::push, .id = 0, .method = kLeg, .body = as_bytes(body)}, frame);
        const std::size_t took = (*stream)->write(frame);
        if (took < frame.size()) return leg(fail("the relay's connection failed"));
        leg(std::move(stream));
      });
}

void Relay::obtain(const std::string& peer, bool we_dial, const Ticket& ticket, Leg leg) {
  if (we_dial) {
    dial(peer, ticket, std::move(leg));
  } else {
    await(peer, ticket, std::move(leg));
  }
}

void Relay::accept(std::unique_ptr<TlsStream> stream) {
  if (greetings_.size() >= kMaxLegs) greetings_.pop_front();
  Greeting& greeting = greetings_.emplace_back();
  greeting.stream = std::move(stream);
  greeting.timeout = loop_.after(kLegTimeout, [this, &greeting] { drop(greeting); });
  greeting.stream->start({.readable = [this, &greeting] { on_greeting(greeting); },
                          .writable = {},
                          .closed = [this, &greeting](const std::string&) { drop(greeting); }});
}

void Relay::drop(Greeting& greeting) {
  greetings_.remove_if([&](const Greeting& other) { return &other == &greeting; });
}

void Relay::on_greeting(Greeting& greeting) {
  const auto frame = greeting.reader.next(*greeting.stream);
  if (frame && !*frame) return;  // not all of it is here
  std::string ticket;
  if (frame && (*frame)->kind == FrameKind::push && (*frame)->method == kLeg) {
    const auto body = parse_json_body((*frame)->body);
    if (body) ticket = text_member(*body, "ticket");
  }
  auto stream = std::move(greeting.stream);
  drop(greeting);
  const std::string peer = stream->tls().peer_name();
  settle(peer, ticket, std::move(stream));  // an unknown ticket: the stream ends here
}

bool Relay::on_request(Session& session, const std::string& method, const nlohmann::json& body,
                       Responder& responder) {
  if (method == kCall) return on_call(session, body, responder), true;
  if (method == kAnswer) return on_answer(session, body, responder), true;
  return false;
}

// We are the relay.
void Relay::on_call(Session& caller, const nlohmann::json& body, Responder& responder) {
  const std::string to = text_member(body, "to");
  const Ticket ticket = text_member(body, "ticket");
  if (!is_valid_name(to) || !is_ticket(ticket)) return responder.fail("malformed relay.call");
  if (!caller.via().empty()) return responder.fail("a relayed session cannot be relayed again");
  Session* target = to == caller.peer() ? nullptr : hooks_.direct_session(to);
  if (target == nullptr) {
    return responder.fail(fmt::format("{} has no direct session with {}", self_, to));
  }
  if (circuits_.size() >= kMaxCircuits) {
    return responder.fail(
        fmt::format("{} relays {} connections and takes no more", self_, circuits_.size()));
  }
  const std::uint64_t id = next_circuit_++;
  circuits_[id].timeout = loop_.after(kLegTimeout, [this, id] { circuits_.erase(id); });
  ask_target(*target, caller.peer(), id,
             [this, id, ticket, peer = caller.peer(), we_dial = caller.is_initiator(),
              responder = std::move(responder)](Result<> agreed) mutable {
               if (!agreed) {
                 circuits_.erase(id);
                 return responder.fail(agreed.error().text);
               }
               obtain(peer, we_dial, ticket,
                      [this, id](auto leg) { on_leg(id, true, std::move(leg)); });
               responder.reply(nlohmann::json::object());
             });
}

void Relay::ask_target(Session& target, const std::string& from, std::uint64_t circuit,
                       std::move_only_function<void(Result<>)> agreed) {
  const Ticket ticket = new_ticket();
  const std::string peer = target.peer();
  const bool we_dial = target.is_initiator();
  const auto on_target_leg = [this, circuit](auto leg) { on_leg(circuit, false, std::move(leg)); };
  if (!we_dial) await(peer, ticket, on_target_leg);  // before they can dial
  target.request(
      kAnswer, {{"to", peer}, {"from", from}, {"ticket", ticket}},
      [this, peer, ticket, we_dial, on_target_leg,
       agreed = std::move(agreed)](Result<nlohmann::json> answer) mutable {
        if (!answer) {
          awaited_.erase({peer, ticket});
          return agreed(std::unexpected(answer.error()));
        }
        if (we_dial) dial(peer, ticket, on_target_leg);
        agreed({});
      },
      kLegTimeout / 2);
}

void Relay::on_leg(std::uint64_t id, bool of_caller, Result<std::unique_ptr<TlsStream>> leg) {
  const auto found = circuits_.find(id);
  if (found == circuits_.end()) return;  // timed out
  if (!leg) {
    circuits_.erase(found);  // the other leg's end tells the caller
    return;
  }
  Circuit& circuit = found->second;
  (of_caller ? circuit.caller : circuit.target) = std::move(*leg);
  if (circuit.caller == nullptr || circuit.target == nullptr) return;
  circuit.timeout.reset();
  Passing passing = hooks_.relayed(*circuit.caller, *circuit.target);
  circuit.splice = std::make_unique<Splice>(
      loop_, std::move(circuit.caller), std::move(circuit.target), std::move(passing),
      [this, id](const std::string&) { circuits_.erase(id); });
}

// We are the target.
void Relay::on_answer(Session& relay, const nlohmann::json& body, Responder& responder) {
  const Ticket ticket = text_member(body, "ticket");
  if (!is_ticket(ticket)) return responder.fail("malformed relay.answer");
  responder.reply(nlohmann::json::object());
  obtain(relay.peer(), relay.is_initiator(), ticket, [this, via = relay.peer()](auto leg) {
    if (leg) hooks_.called(std::move(*leg), via);
  });
}

}  // namespace godwit::session

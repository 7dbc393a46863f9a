// Text that people, invitations and configurations bring: the first byte chooses the parser. What
// is understood and has a text form must be understood again from it.
#include "base/check.hh"
#include "base/id.hh"
#include "base/units.hh"
#include "lab/config.hh"
#include "os/endpoint.hh"
#include "qemu/vm_spec.hh"
#include "session/invite.hh"

namespace {

using namespace godwit;

void addresses(const std::string& text) {
  if (const auto endpoint = os::Endpoint::parse(text, 4747)) {
    CHECK(os::Endpoint::parse(endpoint->text()).value() == *endpoint);
  }
  if (const auto pair = os::parse_host_port(text, 4747)) CHECK(!pair->host.empty());
}

void invitations(const std::string& text) {
  if (const auto token = session::InviteToken::parse(text)) CHECK(token->text() == text);
  if (const auto target = session::JoinTarget::parse(text)) CHECK(!target->host.empty());
}

void quantities(const std::string& text) {
  (void)parse_duration(text);
  (void)parse_byte_count(text);
  (void)parse_bit_rate(text);
  if (const auto id = MigrationId::parse(text)) CHECK(id->text().size() == 32);
  (void)is_valid_name(text);
  (void)qemu::is_valid_mac(text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      addresses(text);
      break;
    case 1:
      invitations(text);
      break;
    case 2:
      quantities(text);
      break;
    default:
      (void)lab::parse_lab(text, "fuzz");
  }
  return 0;
}

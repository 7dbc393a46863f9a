#include "session/join.hh"

#include <gmock/gmock.h>

#include "os/test_wait.hh"
#include "session/acceptor.hh"

namespace godwit::session {
namespace {

using testing::HasSubstr;

TEST(InviteToken, IsSixtyFourCharacters) {
  InviteToken token;
  for (std::size_t i = 0; i < token.secret.size(); ++i) token.secret[i] = static_cast<std::byte>(i);
  token.ca_fingerprint.fill(std::byte{0xff});
  // RFC 4648, 5: the bytes 00 01 02 ... 0f and then 32 times ff.
  EXPECT_EQ(token.text(), "AAECAwQFBgcICQoLDA0OD_" + std::string(42, '_'));
  const auto parsed = InviteToken::parse(token.text());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->secret, token.secret);
  EXPECT_EQ(parsed->ca_fingerprint, token.ca_fingerprint);
  EXPECT_FALSE(InviteToken::parse("short"));
  EXPECT_FALSE(InviteToken::parse(std::string(64, '+')));
}

TEST(JoinTarget, NamesTheHost) {
  const std::string token = InviteToken{}.text();
  EXPECT_EQ(JoinTarget::parse(token + "@east.example")->port, 4747);
  EXPECT_EQ(JoinTarget::parse(token + "@[fd00::1]:99")->host, "fd00::1");
  EXPECT_FALSE(JoinTarget::parse(token));
  EXPECT_FALSE(JoinTarget::parse("x@east"));
}

TEST(Invites, AreUsedOnceAndExpire) {
  const crypto::WallTime now{std::chrono::seconds(1'000'000)};
  Invites invites(crypto::Sha256{});
  const auto token = invites.make(now);
  EXPECT_TRUE(invites.is_open(token->secret, now + std::chrono::minutes(59)));
  EXPECT_FALSE(invites.is_open(token->secret, now + std::chrono::minutes(60)));
  EXPECT_FALSE(invites.is_open(InviteToken{}.secret, now));
  // What is stored opens nothing by itself, and survives a restart.
  EXPECT_NE(to_hex(invites.records().front().secret_hash).substr(0, 32), to_hex(token->secret));
  Invites restarted(crypto::Sha256{}, invites.records());
  EXPECT_TRUE(restarted.is_open(token->secret, now));
  restarted.use(token->secret);
  EXPECT_FALSE(restarted.is_open(token->secret, now));
}

// A founder that takes hosts in.
class Join : public testing::Test {
 protected:
  Join()
      : invites_(ca_.certificate().fingerprint()),
        server_(loop_, ca_, invites_,
                {.admit = [](const KnownHost& host) -> Result<> {
                   if (host.name == "founder") return fail("the name founder is taken");
                   return {};
                 },
                 .joined = [this](const KnownHost& host) -> Result<> {
                   joined_.push_back(host);
                   return {};
                 },
                 .hosts = [this] { return hosts_; }}),
        acceptor_(loop_, crypto::Identity::make(ca_, "founder").value(),
                  {.session = {},
                   .lane = {},
                   .relay = {},
                   .join = [this](auto stream, auto) { server_.accept(std::move(stream)); },
                   .refused = {}}),
        address_(acceptor_.listen(os::Endpoint::loopback(0))) {}

  Result<Joined> join(const InviteToken& token, const std::string& host) {
    std::optional<Result<Joined>> result;
    JoinClient client(loop_,
                      {.token = token,
                       .at = {address_},
                       .host = host,
                       .site = "west",
                       .port = 4747,
                       .addresses = {"10.0.0.7:4747"}},
                      [&](Result<Joined> joined) { result = std::move(joined); });
    EXPECT_TRUE(os::run_until(loop_, [&] { return result.has_value(); }));
    return std::move(*result);
  }

  os::Loop loop_;
  crypto::FleetCa ca_ = crypto::FleetCa::make("test");
  Invites invites_;
  std::vector<KnownHost> joined_;
  std::vector<KnownHost> hosts_{{"founder", "east", {"10.0.0.1:4747", "[fd00::1]:4747"}}};
  JoinServer server_;
  Acceptor acceptor_;
  os::Endpoint address_;
};

TEST_F(Join, InvitedHostBecomesAMember) {
  const InviteToken token = invites_.make(crypto::wall_now()).value();
  const auto member = join(token, "west-1");
  ASSERT_TRUE(member) << member.error().text;
  EXPECT_EQ(member->identity.host_name(), "west-1");
  EXPECT_EQ(member->identity.ca().fingerprint(), ca_.certificate().fingerprint());
  EXPECT_EQ(member->hosts, hosts_);
  ASSERT_EQ(joined_.size(), 1U);
  EXPECT_EQ(joined_[0], (KnownHost{"west-1", "west", {"127.0.0.1:4747", "10.0.0.7:4747"}}));

  const auto again = join(token, "west-2");
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().text, HasSubstr("unknown, used or expired"));
  EXPECT_EQ(joined_.size(), 1U);
}

TEST_F(Join, RefusedNameLeavesTheInvitationOpen) {
  const InviteToken token = invites_.make(crypto::wall_now()).value();
  EXPECT_THAT(join(token, "founder").error().text,
              HasSubstr("founder refused: the name founder is taken"));
  EXPECT_THAT(join(token, "Bad Name").error().text, HasSubstr("not a valid name"));
  EXPECT_TRUE(join(token, "west-1"));
}

TEST_F(Join, UninvitedHostIsRefused) {
  InviteToken guess{.secret = {}, .ca_fingerprint = ca_.certificate().fingerprint()};
  EXPECT_FALSE(join(guess, "west-1"));
  const InviteToken expired = invites_.make(crypto::wall_now() - std::chrono::hours(2)).value();
  EXPECT_FALSE(join(expired, "west-1"));
  EXPECT_TRUE(joined_.empty());
}

TEST_F(Join, AHostThatIsNotThereIsNamed) {
  const InviteToken token = invites_.make(crypto::wall_now()).value();
  address_ = os::Endpoint::loopback(1);  // nobody listens
  const auto refused = join(token, "west-1");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(refused.error().text, HasSubstr("refused"));
}

TEST_F(Join, HostOfAnotherFleetIsNotToldTheSecret) {
  InviteToken token = invites_.make(crypto::wall_now()).value();
  token.ca_fingerprint = crypto::FleetCa::make("test").certificate().fingerprint();
  const auto refused = join(token, "west-1");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text, HasSubstr("not of the fleet that made this invitation"));
  EXPECT_TRUE(joined_.empty());
}

}  // namespace
}  // namespace godwit::session

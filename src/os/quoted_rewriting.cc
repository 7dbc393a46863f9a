#include "os/quoted_rewriting.hh"

#include <netinet/in.h>
// Before the kernel's own.
#include <libmnl/libmnl.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/check.hh"
#include "os/fd.hh"

namespace godwit::os {
namespace {

// RFC 792, RFC 4443: type, code, checksum, four more bytes, the quoted packet from its IP header.
constexpr std::uint32_t kQuoted = 8;
constexpr std::uint32_t kIcmpChecksum = 2;
constexpr std::uint32_t kIpv4Checksum = kQuoted + 10;
constexpr std::uint32_t kIpv4Source = kQuoted + 12, kIpv4Destination = kQuoted + 16;
constexpr std::uint32_t kIpv6Source = kQuoted + 8, kIpv6Destination = kQuoted + 24;
// Destination unreachable, time exceeded, parameter problem. In ICMPv6 all errors are below 128.
constexpr std::array<std::uint8_t, 3> kErrors4{3, 11, 12};
constexpr std::uint8_t kNoError6 = 128;

// One rule, expression by expression; values go through register 1.
class RuleBuilder final {
 public:
  RuleBuilder(const std::string& table, const std::string& chain) : rule_(::nftnl_rule_alloc()) {
    CHECK(rule_ != nullptr);
    ::nftnl_rule_set_str(rule_.get(), NFTNL_RULE_TABLE, table.c_str());
    ::nftnl_rule_set_str(rule_.get(), NFTNL_RULE_CHAIN, chain.c_str());
    ::nftnl_rule_set_u32(rule_.get(), NFTNL_RULE_FAMILY, NFPROTO_INET);
  }

  void load_protocol() {
    auto* const meta = add("meta");
    ::nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, NFT_META_L4PROTO);
    ::nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, NFT_REG_1);
  }
  void load(std::uint32_t offset, std::uint32_t size) {
    ::nftnl_expr_set_u32(payload(offset, size), NFTNL_EXPR_PAYLOAD_DREG, NFT_REG_1);
  }
  void compare(std::uint32_t operation, std::uint8_t value) {
    auto* const compare = add("cmp");
    ::nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
    ::nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_OP, operation);
    ::nftnl_expr_set(compare, NFTNL_EXPR_CMP_DATA, &value, sizeof value);
  }
  void look_up(const std::string& map) {
    auto* const lookup = add("lookup");
    ::nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SREG, NFT_REG_1);
    ::nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_1);
    ::nftnl_expr_set_str(lookup, NFTNL_EXPR_LOOKUP_SET, map.c_str());
  }
  void store(std::uint32_t offset, std::uint32_t size, std::uint32_t checksum) {
    auto* const store = payload(offset, size);
    ::nftnl_expr_set_u32(store, NFTNL_EXPR_PAYLOAD_SREG, NFT_REG_1);
    ::nftnl_expr_set_u32(store, NFTNL_EXPR_PAYLOAD_CSUM_TYPE, NFT_PAYLOAD_CSUM_INET);
    ::nftnl_expr_set_u32(store, NFTNL_EXPR_PAYLOAD_CSUM_OFFSET, checksum);
  }
  nftnl_rule* get() const { return rule_.get(); }

 private:
  struct Closer {
    void operator()(nftnl_rule* rule) const { ::nftnl_rule_free(rule); }
  };
  nftnl_expr* add(const char* kind) {
    auto* const expression = ::nftnl_expr_alloc(kind);
    CHECK(expression != nullptr);
    ::nftnl_rule_add_expr(rule_.get(), expression);  // which owns it
    return expression;
  }
  nftnl_expr* payload(std::uint32_t offset, std::uint32_t size) {
    auto* const payload = add("payload");
    ::nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER);
    ::nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
    ::nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, size);
    return payload;
  }

  std::unique_ptr<nftnl_rule, Closer> rule_;
};

std::vector<RuleBuilder> rules_of(const QuotedMaps& maps) {
  std::vector<RuleBuilder> rules;
  const auto begin = [&](std::uint8_t protocol, std::uint32_t operation, std::uint8_t type) {
    auto& rule = rules.emplace_back(maps.table, maps.chain);
    rule.load_protocol();
    rule.compare(NFT_CMP_EQ, protocol);
    rule.load(0, 1);
    rule.compare(operation, type);
    return &rule;
  };
  const std::uint32_t at4 = maps.of_source ? kIpv4Source : kIpv4Destination;
  const std::uint32_t at6 = maps.of_source ? kIpv6Source : kIpv6Destination;
  for (const std::uint8_t type : kErrors4) {
    auto* const rule = begin(IPPROTO_ICMP, NFT_CMP_EQ, type);
    rule->load(at4, 4);
    rule->look_up(maps.map4);
    rule->store(at4, 4, kIpv4Checksum);
  }
  auto* const rule = begin(IPPROTO_ICMPV6, NFT_CMP_LT, kNoError6);
  rule->load(at6, 16);
  rule->look_up(maps.map6);
  rule->store(at6, 16, kIcmpChecksum);
  return rules;
}

struct SocketCloser {
  void operator()(mnl_socket* socket) const { ::mnl_socket_close(socket); }
};
struct BatchCloser {
  void operator()(mnl_nlmsg_batch* batch) const { ::mnl_nlmsg_batch_stop(batch); }
};

// One transaction; the kernel answers each rule.
Result<> send(std::span<const RuleBuilder> rules) {
  const std::unique_ptr<mnl_socket, SocketCloser> socket(
      ::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC));
  if (!socket || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) {
    return fail("{}", errno_text("open a netlink socket for nftables"));
  }
  std::vector<char> buffer(1U << 16);
  const std::unique_ptr<mnl_nlmsg_batch, BatchCloser> batch(
      ::mnl_nlmsg_batch_start(buffer.data(), buffer.size()));
  const auto current = [&] { return static_cast<char*>(::mnl_nlmsg_batch_current(batch.get())); };
  std::uint32_t sequence = 0;
  ::nftnl_batch_begin(current(), sequence++);
  CHECK(::mnl_nlmsg_batch_next(batch.get()));
  for (const RuleBuilder& rule : rules) {
    auto* const header =
        ::nftnl_nlmsg_build_hdr(current(), NFT_MSG_NEWRULE, NFPROTO_INET,
                                NLM_F_APPEND | NLM_F_CREATE | NLM_F_ACK, sequence++);
    ::nftnl_rule_nlmsg_build_payload(header, rule.get());
    CHECK(::mnl_nlmsg_batch_next(batch.get()));
  }
  ::nftnl_batch_end(current(), sequence++);
  CHECK(::mnl_nlmsg_batch_next(batch.get()));
  if (::mnl_socket_sendto(socket.get(), ::mnl_nlmsg_batch_head(batch.get()),
                          ::mnl_nlmsg_batch_size(batch.get())) < 0) {
    return fail("{}", errno_text("send rules to nftables"));
  }
  const unsigned port = ::mnl_socket_get_portid(socket.get());
  std::vector<char> answer(1U << 16);
  for (std::size_t acknowledged = 0; acknowledged < rules.size(); ++acknowledged) {
    const auto size = ::mnl_socket_recvfrom(socket.get(), answer.data(), answer.size());
    if (size < 0 || ::mnl_cb_run(answer.data(), static_cast<std::size_t>(size), 0, port, nullptr,
                                 nullptr) < 0) {
      return fail("{}", errno_text("add nftables rules for what ICMP errors quote"));
    }
  }
  return {};
}

}  // namespace

Result<> add_quoted_rules(const QuotedMaps& maps) { return send(rules_of(maps)); }

}  // namespace godwit::os

#include "os/nftables.hh"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <regex>
#include <sstream>

#include "base/check.hh"

namespace godwit::os {
namespace {

struct Closer {
  void operator()(nft_ctx* context) const { ::nft_ctx_free(context); }
};

// What nft(8) would print.
Result<std::string> run(const std::string& ruleset, unsigned output_flags = 0) {
  // The library keeps a process-wide cache of interface names, which ends with its context: so one
  // context per call (the namespace may be another), and one call at a time.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const std::unique_ptr<nft_ctx, Closer> context(::nft_ctx_new(NFT_CTX_DEFAULT));
  CHECK(context != nullptr);
  ::nft_ctx_output_set_flags(context.get(), output_flags);
  ::nft_ctx_buffer_output(context.get());
  ::nft_ctx_buffer_error(context.get());
  if (::nft_run_cmd_from_buffer(context.get(), ruleset.c_str()) == 0) {
    return std::string(::nft_ctx_get_output_buffer(context.get()));
  }
  return fail("apply an nftables ruleset: {}", ::nft_ctx_get_error_buffer(context.get()));
}

// Whether it is there or not.
std::string removal(const std::string& table) {
  return fmt::format("table inet {0} {{}}\ndelete table inet {0}\n", table);
}

}  // namespace

Result<> apply_nftables(const std::string& ruleset) {
  if (const auto output = run(ruleset); !output) return std::unexpected(output.error());
  return {};
}

Result<> write_inet_table(const InetTable& table) {
  static const std::regex named("(?:^|\n) *(set|map|chain) (\\w+) \\{");
  const auto with = [&](const std::string& content) {
    return fmt::format("table inet {} {{\n{}}}\n", table.name, content);
  };
  const std::string emptied = table.objects + table.chains;
  std::string ruleset = with(table.kept + emptied);
  for (std::sregex_iterator each(emptied.begin(), emptied.end(), named), end; each != end; ++each) {
    ruleset += fmt::format("flush {} inet {} {}\n", each->str(1), table.name, each->str(2));
  }
  ruleset += with(table.chains) + table.elements;
  if (auto done = apply_nftables(ruleset)) return done;
  // Somebody has made another table of it.
  return apply_nftables(removal(table.name) + ruleset);
}

Result<> remove_inet_table(const std::string& name) { return apply_nftables(removal(name)); }

Result<std::string> query_nftables(const std::string& command) {
  return run(command, NFT_CTX_OUTPUT_JSON);
}

Result<std::vector<std::string>> netdev_tables() {
  const auto output = run("list tables netdev");
  if (!output) return std::unexpected(output.error());
  std::vector<std::string> names;
  std::istringstream words(*output);  // "table netdev NAME" a line
  for (std::string table, family, name; words >> table >> family >> name;) names.push_back(name);
  return names;
}

namespace {

// Asks the kernel without libnftables, which reads all there is first. -1: errno says why.
int ask_kernel(int type, std::uint8_t family, const std::string& table, mnl_cb_t take, void* into) {
  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket(
      ::mnl_socket_open2(NETLINK_NETFILTER, SOCK_CLOEXEC), ::mnl_socket_close);
  if (!socket || ::mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) return -1;
  std::array<char, 8192> buffer{};
  nlmsghdr* const header = ::mnl_nlmsg_put_header(buffer.data());
  header->nlmsg_type = static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type);
  header->nlmsg_flags = NLM_F_REQUEST;
  const nfgenmsg about{.nfgen_family = family, .version = NFNETLINK_V0, .res_id = 0};
  std::memcpy(::mnl_nlmsg_put_extra_header(header, sizeof about), &about, sizeof about);
  if (!table.empty()) ::mnl_attr_put_strz(header, NFTA_TABLE_NAME, table.c_str());
  if (::mnl_socket_sendto(socket.get(), header, header->nlmsg_len) < 0) return -1;
  const auto size = ::mnl_socket_recvfrom(socket.get(), buffer.data(), buffer.size());
  if (size < 0) return -1;
  return ::mnl_cb_run(buffer.data(), static_cast<std::size_t>(size), 0,
                      ::mnl_socket_get_portid(socket.get()), take, into);
}

}  // namespace

Result<bool> has_inet_table(const std::string& name) {
  if (ask_kernel(NFT_MSG_GETTABLE, NFPROTO_INET, name, nullptr, nullptr) >= 0) return true;
  if (errno == ENOENT) return false;
  return fail("{}", errno_text("ask nftables for a table"));
}

Result<std::uint32_t> nftables_generation() {
  std::optional<std::uint32_t> generation;
  const auto take = [](const nlmsghdr* message, void* into) {
    const auto look = [](const nlattr* attribute, void* found) {
      if (::mnl_attr_get_type(attribute) == NFTA_GEN_ID) {
        *static_cast<std::optional<std::uint32_t>*>(found) = ntohl(::mnl_attr_get_u32(attribute));
      }
      return MNL_CB_OK;
    };
    return ::mnl_attr_parse(message, sizeof(nfgenmsg), look, into);
  };
  if (ask_kernel(NFT_MSG_GETGEN, AF_UNSPEC, "", take, &generation) < 0 || !generation) {
    return fail("{}", errno_text("ask nftables for its generation"));
  }
  return *generation;
}

}  // namespace godwit::os

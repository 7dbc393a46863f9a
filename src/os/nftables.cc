#include "os/nftables.hh"

#include <nftables/libnftables.h>

#include <memory>
#include <mutex>
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

}  // namespace

Result<> apply_nftables(const std::string& ruleset) {
  if (const auto output = run(ruleset); !output) return std::unexpected(output.error());
  return {};
}

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

}  // namespace godwit::os

#include "os/nftables.hh"

#include <nftables/libnftables.h>

#include <memory>
#include <mutex>

#include "base/check.hh"

namespace godwit::os {
namespace {

struct Closer {
  void operator()(nft_ctx* context) const { ::nft_ctx_free(context); }
};

}  // namespace

Result<> apply_nftables(const std::string& ruleset) {
  // The library keeps a process-wide cache of interface names, which ends with its context: so one
  // context per call (the namespace may be another), and one call at a time.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  const std::unique_ptr<nft_ctx, Closer> context(::nft_ctx_new(NFT_CTX_DEFAULT));
  CHECK(context != nullptr);
  ::nft_ctx_buffer_output(context.get());
  ::nft_ctx_buffer_error(context.get());
  if (::nft_run_cmd_from_buffer(context.get(), ruleset.c_str()) == 0) return {};
  return fail("apply an nftables ruleset: {}", ::nft_ctx_get_error_buffer(context.get()));
}

}  // namespace godwit::os

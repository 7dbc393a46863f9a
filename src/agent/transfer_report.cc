#include "agent/transfer_report.hh"

namespace godwit::agent {
namespace {

std::vector<migrate::EncodingUse> encodings(const codec::Stats& stats) {
  std::vector<migrate::EncodingUse> all;
  for (std::size_t i = 0; i < codec::kEncodings; ++i) {
    const codec::EncodingStats& each = stats.by_encoding[i];
    all.push_back({.name = std::string(codec::to_text(codec::Encoding(i))),
                   .pages = each.pages,
                   .bytes = each.raw,
                   .encoded_bytes = each.plain});
  }
  all.push_back({.name = "zstd", .pages = 0, .bytes = stats.plain, .encoded_bytes = stats.coded});
  return all;
}

}  // namespace

void fill(migrate::Report& report, TransferLink& link) {
  const auto stats = link.stats();
  report.memory_bytes = link.memory().offered;
  if (const codec::Stats* encoded = link.encoded()) report.encodings = encodings(*encoded);
  report.wan_bytes = stats.lane_bytes_out + stats.lane_bytes_in;
}

}  // namespace godwit::agent

#pragma once
// Ways to make a migration stream small, side by side for `godwit debug stream bench`: Godwit's
// own, what zstd makes of the same bytes, and the least that is left if no page is sent twice.
#include <memory>
#include <string>

#include "base/bytes.hh"
#include "base/result.hh"
#include "codec/encoder.hh"

namespace godwit::cli {

class Coding {
 public:
  virtual ~Coding() = default;
  // Each appends.
  virtual void encode(BytesView raw, Bytes& coded) = 0;
  virtual void finish(Bytes& coded) = 0;
  virtual Result<> decode(BytesView coded, Bytes& raw) = 0;
  // False: decode() gives nothing, this is a bound.
  virtual bool decodes() const { return true; }
  // Of Godwit's own.
  virtual std::optional<codec::Stats> stats() const { return {}; }
};

std::unique_ptr<Coding> godwit_coding(const codec::Settings& settings);

// As `zstd -LEVEL --long=27` has it, which both ends need 128 MiB for.
inline constexpr int kZstdWindowBits = 27;
std::unique_ptr<Coding> zstd_coding(int level);

// The pages that are not zero, each once, through zstd: it looks back for more than any cache can.
// Of each page 16 bytes of digest are kept.
std::unique_ptr<Coding> unique_pages(int level);

}  // namespace godwit::cli

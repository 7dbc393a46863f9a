#include "cli/stream_coding.hh"

#include <zstd.h>

#include <cstring>
#include <new>
#include <unordered_set>

#include "base/check.hh"
#include "codec/decoder.hh"
#include "codec/encoder.hh"
#include "stream/qemu_parser.hh"
#include "stream/stream_hash.hh"

namespace godwit::cli {
namespace {

class GodwitCoding final : public Coding {
 public:
  explicit GodwitCoding(const codec::Settings& settings) : encoder_(settings), decoder_(settings) {}

  void encode(BytesView raw, Bytes& coded) override {
    encoder_.push(raw);
    append(coded, encoder_.take().bytes);
  }
  void finish(Bytes& coded) override {
    encoder_.finish();
    append(coded, encoder_.take().bytes);
  }
  Result<> decode(BytesView coded, Bytes& raw) override {
    decoder_.push(coded);
    Result<bool> more = true;
    while (more && *more) more = decoder_.step();
    if (!more) return std::unexpected(more.error());
    append(raw, decoder_.take());
    return {};
  }
  std::optional<codec::Stats> stats() const override { return encoder_.stats(); }

 private:
  codec::Encoder encoder_;
  codec::Decoder decoder_;
};

void check(std::size_t done) {
  CHECK(ZSTD_isError(done) == 0, "zstd: {}", ZSTD_getErrorName(done));
}

// One frame, flushed at its end only.
class ZstdCoding final : public Coding {
 public:
  explicit ZstdCoding(int level)
      : compressor_(ZSTD_createCCtx()), decompressor_(ZSTD_createDCtx()) {
    if (!compressor_ || !decompressor_) throw std::bad_alloc();
    const auto set = [&](ZSTD_cParameter parameter, int value) {
      check(ZSTD_CCtx_setParameter(compressor_.get(), parameter, value));
    };
    set(ZSTD_c_compressionLevel, level);
    set(ZSTD_c_windowLog, kZstdWindowBits);
    set(ZSTD_c_enableLongDistanceMatching, 1);
  }

  void encode(BytesView raw, Bytes& coded) override { compress(raw, ZSTD_e_continue, coded); }
  void finish(Bytes& coded) override { compress({}, ZSTD_e_end, coded); }
  Result<> decode(BytesView coded, Bytes& raw) override {
    ZSTD_inBuffer input{.src = coded.data(), .size = coded.size(), .pos = 0};
    bool full = false;  // there may be more of it in the decompressor
    while (input.pos < input.size || full) {
      const std::size_t at = raw.size();
      raw.resize(at + ZSTD_DStreamOutSize());
      ZSTD_outBuffer output{.dst = raw.data() + at, .size = ZSTD_DStreamOutSize(), .pos = 0};
      const std::size_t done = ZSTD_decompressStream(decompressor_.get(), &output, &input);
      raw.resize(at + output.pos);
      if (ZSTD_isError(done) != 0) return fail("zstd: {}", ZSTD_getErrorName(done));
      full = output.pos == output.size;
    }
    return {};
  }

 private:
  struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };

  void compress(BytesView raw, ZSTD_EndDirective until, Bytes& coded) {
    ZSTD_inBuffer input{.src = raw.data(), .size = raw.size(), .pos = 0};
    std::size_t left = 1;
    while (until == ZSTD_e_end ? left > 0 : input.pos < input.size) {
      const std::size_t at = coded.size();
      coded.resize(at + ZSTD_CStreamOutSize());
      ZSTD_outBuffer output{.dst = coded.data() + at, .size = ZSTD_CStreamOutSize(), .pos = 0};
      check(left = ZSTD_compressStream2(compressor_.get(), &output, &input, until));
      coded.resize(at + output.pos);
    }
  }

  std::unique_ptr<ZSTD_CCtx, Free> compressor_;
  std::unique_ptr<ZSTD_DCtx, Free> decompressor_;
};

struct FirstBytes {
  std::size_t operator()(const stream::StreamDigest& digest) const {
    std::size_t hash = 0;
    std::memcpy(&hash, digest.data(), sizeof hash);
    return hash;
  }
};

class UniquePages final : public Coding, private stream::QemuSink {
 public:
  explicit UniquePages(int level) : zstd_(level) {}

  void encode(BytesView raw, Bytes& coded) override {
    parser_.push(raw);
    zstd_.encode(pages_, coded);
    pages_.clear();
  }
  void finish(Bytes& coded) override { zstd_.finish(coded); }
  Result<> decode(BytesView, Bytes&) override { return {}; }
  bool decodes() const override { return false; }

 private:
  void opaque(BytesView) override {}
  void mark(const stream::QemuMark&) override {}
  void page(const stream::PageRecord& record) override {
    if (record.kind != stream::PageRecord::Kind::kPage) return;
    stream::StreamHash hash;
    hash.update(record.contents);
    if (seen_.insert(hash.digest()).second) append(pages_, record.contents);
  }

  stream::QemuParser parser_{*this};
  std::unordered_set<stream::StreamDigest, FirstBytes> seen_;
  Bytes pages_;
  ZstdCoding zstd_;
};

}  // namespace

std::unique_ptr<Coding> godwit_coding(const codec::Settings& settings) {
  return std::make_unique<GodwitCoding>(settings);
}
std::unique_ptr<Coding> zstd_coding(int level) { return std::make_unique<ZstdCoding>(level); }
std::unique_ptr<Coding> unique_pages(int level) { return std::make_unique<UniquePages>(level); }

}  // namespace godwit::cli

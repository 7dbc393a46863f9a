#include "codec/batch_packer.hh"

namespace godwit::codec {

void BatchPacker::pack(const PlainBatch& batch, int level, Bytes& out) {
  const std::size_t at = out.size();
  const bool is_plain = batch.kind == BatchKind::kPlain;
  const bool compresses = is_plain && level > 0;
  out.resize(at + BatchHeader::kSize);
  if (compresses) {
    if (!compressor_) compressor_.emplace(window_bits_);
    compressor_->compress(batch.bytes, level, out);
  } else {
    append(out, batch.bytes);
  }
  write({.method = compresses ? Method::kZstd : Method::kStored,
         .kind = batch.kind,
         .page_bits = batch.page_bits,
         .window = window_,
         .coded = static_cast<std::uint32_t>(out.size() - at - BatchHeader::kSize),
         .plain = is_plain ? static_cast<std::uint32_t>(batch.bytes.size()) : 0,
         .operations = batch.operations},
        out.data() + at);
}

}  // namespace godwit::codec

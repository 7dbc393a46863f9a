#include "wire/batch.hh"

#include "base/check.hh"

namespace godwit::wire {

bool DatagramBatch::fits_last_run(std::size_t size) const {
  if (runs_.empty() || block_used_ + size > kBlockBytes) return false;
  const DatagramRun& run = runs_.back();
  // A shorter datagram ends its run.
  const bool ended = run.bytes.size() % run.segment_size != 0;
  return !ended && size <= run.segment_size && run.datagrams() < kMaxRunSegments &&
         run.bytes.size() + size <= kMaxRunBytes;
}

MutableBytes DatagramBatch::add(std::size_t size) {
  CHECK(size > 0 && size <= kMaxRunBytes, "datagram of {} B", size);
  if (fits_last_run(size)) {
    DatagramRun& run = runs_.back();
    run.bytes = MutableBytes(run.bytes.data(), run.bytes.size() + size);
  } else {
    if (blocks_.empty() || block_used_ + size > kBlockBytes) {
      block_ = blocks_.empty() ? 0 : block_ + 1;
      block_used_ = 0;
      if (block_ == blocks_.size()) blocks_.push_back(std::make_unique_for_overwrite<Block>());
    }
    runs_.push_back({MutableBytes(blocks_[block_]->data() + block_used_, size),
                     static_cast<std::uint16_t>(size)});
  }
  block_used_ += size;
  ++datagrams_;
  bytes_ += size;
  return runs_.back().bytes.last(size);
}

void DatagramBatch::clear() {
  runs_.clear();
  block_ = block_used_ = datagrams_ = bytes_ = 0;
}

}  // namespace godwit::wire

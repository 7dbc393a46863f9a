#pragma once
// The memory stream on its way out of the transfer: coded bytes go to a decoder in a thread of its
// own and come back as what QEMU is to read. Owned by a TransferLink; control thread.
//
//   take() -> [worker: codec::Decoder] -> raw()/took()
#include <deque>
#include <functional>
#include <memory>

#include "agent/group_pages.hh"
#include "agent/worker.hh"
#include "codec/decoder.hh"

namespace godwit::agent {

class DecodeStage final {
 public:
  struct Events {
    std::function<void()> changed;  // there is something for QEMU, or room
    std::function<void(std::string)> failed;
  };
  // `known`, `group`: see codec::Decoder.
  DecodeStage(os::Loop& control, const codec::Settings& settings, codec::Known known,
              std::shared_ptr<SharedReader> group, Events events);
  ~DecodeStage();

  // Bytes taken, none of a batch before QEMU has taken all but the last of what came before, so
  // that what was taken tells how far QEMU is. Fewer than given: no more until `changed`.
  std::size_t take(BytesView coded);
  BytesView raw() const;
  void took(std::size_t count);
  // What the first checkpoint confirms was decoded (codec::Decoder).
  bool checkpointed() const { return checkpointed_; }
  // The last batch came and its digest is right; QEMU has taken all.
  bool verified() const { return verified_ && raw_.empty(); }
  // Nothing is under way: what has not come by now does not come.
  bool idle() const { return !working_ && raw_.empty(); }

 private:
  struct Outcome {
    Bytes raw, coded;
    bool more = false, checkpointed = false, verified = false;
    std::optional<Error> error;
  };
  std::size_t up_to_batch_end(BytesView coded);
  void work(BytesView coded);
  void came(Outcome outcome);

  os::Loop& control_;
  Events events_;
  std::shared_ptr<SharedReader> group_;
  codec::Decoder decoder_;  // the worker's
  bool working_ = false, more_ = false, checkpointed_ = false, verified_ = false;
  Bytes header_;              // of the batch that is coming, as far as it came
  std::size_t to_come_ = 0;   // bytes of it, after the header
  Bytes coded_;               // memory for the next piece
  std::vector<Bytes> spare_;  // and for what it becomes: new pages cost
  std::deque<Bytes> raw_;
  std::size_t taken_ = 0;  // of the first of raw_
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
  Worker worker_;  // the last: it ends first
};

}  // namespace godwit::agent

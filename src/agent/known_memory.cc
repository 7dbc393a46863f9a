#include "agent/known_memory.hh"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <numeric>

#include "qemu/guest_memory.hh"
#include "qemu/vm_spec.hh"

namespace godwit::agent {
namespace {

using Pages = std::shared_ptr<const codec::KnownPages>;

// What was known before fills what room is left.
Pages read_pages(ByteCount memory, const os::ProcessIdentity& qemu, BytesView key, ByteCount budget,
                 const Pages& before, const std::atomic<bool>& ending) {
  auto pages = std::make_shared<codec::KnownPages>(qemu::kPageBytes, budget.bytes, key);
  if (budget.bytes == 0) return pages;
  const auto done = qemu::read_guest_memory(qemu, memory, [&](BytesView page) {
    pages->add(page);
    return !pages->full() && !ending;
  });
  if (!done) spdlog::info("nothing is kept of a vm that left: {}", done.error().text);
  codec::KnownReader reader({.kept = before});
  for (std::size_t i = 0; before && i < before->pages() && !pages->full() && !ending; ++i) {
    pages->add(reader.page(i).value());
  }
  pages->seal();
  return pages;
}

}  // namespace

KnownMemory::KnownMemory(os::Loop& loop, BytesView key, ByteCount budget, Nanoseconds keep_for)
    : loop_(loop), key_(to_bytes(key)), budget_(budget), keep_for_(keep_for) {}

KnownMemory::~KnownMemory() { ending_ = true; }

void KnownMemory::keep(const VmId& vm, ByteCount memory, const os::ProcessIdentity& qemu,
                       Nanoseconds delay, std::function<void()> done) {
  ++reading_[vm].readers;
  const std::uint64_t number = next_delay_++;
  delays_[number] = loop_.after(delay, [this, number, vm, memory, qemu, done = std::move(done)] {
    loop_.post([this, number] { delays_.erase(number); });
    read(vm, memory, qemu, done);
  });
}

void KnownMemory::read(const VmId& vm, ByteCount memory, const os::ProcessIdentity& qemu,
                       std::function<void()> done) {
  worker_.post([this, vm, memory, qemu, done = std::move(done), before = known(vm),
                alive = std::weak_ptr(alive_)]() mutable {
    Pages pages = read_pages(memory, qemu, key_, budget_, before, ending_);
    before.reset();
    if (ending_) return;
    loop_.post([this, vm, alive, pages = std::move(pages), done = std::move(done)] {
      if (alive.expired()) return;
      kept(vm, pages);
      if (--reading_[vm].readers == 0) {
        answer(vm);
        reading_.erase(vm);
      }
      done();
    });
  });
}

void KnownMemory::kept(const VmId& vm, Pages pages) {
  if (pages->pages() == 0) return;
  spdlog::info("keeping {} of a vm that left, for {}", to_text(ByteCount{pages->bytes()}),
               to_text(keep_for_));
  known_[vm] = {.pages = std::move(pages),
                .since = loop_.now(),
                .end = loop_.after(keep_for_, [this, vm] { forget(vm); })};
  while (known_.size() > 1 && size() > budget_) {
    known_.erase(
        std::ranges::min_element(known_, {}, [](const auto& each) { return each.second.since; }));
  }
}

void KnownMemory::find(const VmId& vm, Found found) {
  const auto reading = reading_.find(vm);
  if (reading == reading_.end()) return found(known(vm));
  reading->second.waiting.push_back(std::move(found));
  reading->second.patience = loop_.after(kKnownWait, [this, vm] { answer(vm); });
}

void KnownMemory::answer(const VmId& vm) {
  for (const Found& found : std::exchange(reading_[vm].waiting, {})) found(known(vm));
}

Pages KnownMemory::known(const VmId& vm) const {
  const auto found = known_.find(vm);
  return found == known_.end() ? nullptr : found->second.pages;
}

ByteCount KnownMemory::size() const {
  return {std::accumulate(
      known_.begin(), known_.end(), std::uint64_t{0},
      [](std::uint64_t sum, const auto& each) { return sum + each.second.pages->bytes(); })};
}

}  // namespace godwit::agent

#include "agent/libvirt_tunnel.hh"

#include <spdlog/spdlog.h>

#include <array>

namespace godwit::agent {
namespace {

constexpr std::array kOpen = {std::byte{1}};

}  // namespace

TunnelEntry::TunnelEntry(os::Loop& loop, Peers& peers, std::string to, const stream::TransferId& id,
                         const std::string& socket)
    : loop_(loop),
      peers_(peers),
      to_(std::move(to)),
      id_(id),
      listener_(os::Listener::unix_(loop, socket, 0600,
                                    [this](auto near, const auto&) { accept(std::move(near)); })) {}

// What it says is not read before there is somebody to tell.
void TunnelEntry::accept(std::unique_ptr<os::ByteStream> near) {
  const auto passage = passages_.emplace_back(std::make_shared<Passage>());
  passage->near = std::move(near);
  peers_.open_lane(to_, [this, passage, alive = std::weak_ptr(alive_)](auto far) {
    if (alive.expired()) return;
    if (far) return greet(passage, *std::move(far));
    spdlog::warn("no way to the libvirt of {}: {}", to_, far.error().text);
    drop(passage);
  });
}

void TunnelEntry::greet(const Held& passage, std::unique_ptr<os::ByteStream> far) {
  const auto with = [weak = std::weak_ptr(passage)](auto&& call) {
    if (const auto held = weak.lock()) call(held);
  };
  passage->far = std::move(far);
  passage->far->start(
      {.readable = [this, with] { with([this](const Held& held) { open(held); }); },
       .writable = [] {},
       .closed = [this, with](const auto&) { with([this](const Held& held) { drop(held); }); }});
  Bytes hello;
  stream::append_frame(hello, {.kind = stream::FrameKind::kHello},
                       encode(stream::Hello{.role = stream::Role::kSource, .transfer = id_}));
  if (passage->far->write(hello) < hello.size()) drop(passage);
}

// The stream is calling: the splice takes its events over afterwards.
void TunnelEntry::open(const Held& passage) {
  std::array<std::byte, kOpen.size()> word{};
  if (!passage->far || passage->far->read(word) == 0) return;
  loop_.post([this, passage, alive = std::weak_ptr(alive_)] {
    if (alive.expired() || !passage->far) return;
    passage->splice = std::make_unique<session::Splice>(
        loop_, std::move(passage->near), std::move(passage->far), [](BytesView) {},
        [this, weak = std::weak_ptr(passage)](const std::string&) {
          if (const auto held = weak.lock()) drop(held);
        });
  });
}

// What is dropped may be calling.
void TunnelEntry::drop(const Held& passage) {
  passages_.remove(passage);
  loop_.post([passage] {});
}

void TunnelExit::use(std::unique_ptr<os::ByteStream> far) {
  if (far->write(kOpen) < kOpen.size()) return;
  auto& splice = splices_.emplace_back();
  splice = std::make_unique<session::Splice>(
      loop_, std::move(far), os::unix_connect(loop_, socket_), [](BytesView) {},
      [this, &splice](const std::string&) { splices_.remove(splice); });
}

}  // namespace godwit::agent

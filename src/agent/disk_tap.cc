#include "agent/disk_tap.hh"

#include <algorithm>

#include "qemu/launch.hh"

namespace godwit::agent {

DiskTap::DiskTap(os::Loop& loop, const std::string& path, std::vector<nbd::Export> disks,
                 Events events)
    : loop_(loop),
      disks_(std::move(disks)),
      events_(std::move(events)),
      listener_(os::Listener::unix_(
          loop, path, 0600, [this](auto stream, const auto&) { accept(std::move(stream)); })) {
  if (const auto granted = qemu::grant_to_qemu(path); !granted) {
    fail_setup("{}", granted.error().text);
  }
}

// What was just answered may keep one a little longer: it must not call us any more.
DiskTap::~DiskTap() {
  for (const auto& client : clients_) client->gone = true;
}

void DiskTap::accept(std::unique_ptr<os::ByteStream> stream) {
  auto client = std::make_shared<Client>(disks_);
  client->stream = std::move(stream);
  clients_.push_back(client);
  const auto with = [raw = std::weak_ptr(client)](auto&& call) {
    if (const auto self = raw.lock(); !self->gone) call(self);
  };
  client->stream->start(
      {.readable = [this, with] { with([this](auto& self) { drive(self); }); },
       .writable =
           [this, with] {
             with([this](auto& self) {
               self->full = false;
               drive(self);
             });
           },
       .closed =
           [this, with](const std::string& reason) {
             with([&](auto& self) { drop(self, reason.empty() ? "closed by QEMU" : reason); });
           }});
  drive(client);
}

void DiskTap::drive(const std::shared_ptr<Client>& client) {
  const std::weak_ptr alive(alive_);
  for (bool more = true; more && !client->gone;) {
    more = read_some(*client);
    take_requests(client);
    if (alive.expired()) return;
    write_some(*client);
  }
  if (client->gone) return;
  if (client->nbd.failed()) return drop(client, client->nbd.failed()->text);
  if (client->nbd.finished()) drop(client, "done");
}

bool DiskTap::read_some(Client& client) {
  const MutableBytes room = client.nbd.room();
  const std::size_t count = room.empty() ? 0 : client.stream->read(room);
  client.nbd.commit(count);
  return count > 0;
}

void DiskTap::take_requests(const std::shared_ptr<Client>& client) {
  const std::weak_ptr alive(alive_);
  while (!client->gone) {
    const auto request = client->nbd.next();
    if (!request) return;
    if (request->command == nbd::Command::kRead) {
      client->nbd.reply(request->id, nbd::ErrorCode::kNotPermitted);  // a mirror does not read
      continue;
    }
    const auto disk = std::ranges::find(disks_, client->nbd.chosen()->name, &nbd::Export::name);
    const std::uint64_t number = ++last_number_;
    waiting_[number] = {.client = client, .id = request->id, .since = loop_.now()};
    events_.write({.disk = static_cast<std::size_t>(disk - disks_.begin()),
                   .number = number,
                   .request = *request});
    if (alive.expired()) return;
  }
}

void DiskTap::write_some(Client& client) {
  while (!client.full && !client.gone) {
    const BytesView next = client.nbd.peek();
    if (next.empty()) return;
    const std::size_t written = client.stream->write(next);
    client.full = written < next.size();
    client.nbd.advance(written);
  }
}

Nanoseconds DiskTap::answer(std::uint64_t number) {
  const auto waiting = waiting_.extract(number);
  const auto client = waiting.empty() ? nullptr : waiting.mapped().client.lock();
  if (!client || client->gone) return Nanoseconds(0);
  client->nbd.reply(waiting.mapped().id);
  write_some(*client);
  // It may have waited for this to take the next.
  loop_.post([this, client, alive = std::weak_ptr(alive_)] {
    if (!alive.expired() && !client->gone) drive(client);
  });
  return loop_.now() - waiting.mapped().since;
}

// The stream may be calling us.
void DiskTap::drop(const std::shared_ptr<Client>& client, const std::string& why) {
  if (!client || std::exchange(client->gone, true)) return;
  const bool had_chosen = client->nbd.chosen() != nullptr;
  std::erase(clients_, client);
  loop_.post([client] { client->stream.reset(); });
  if (had_chosen && events_.lost) events_.lost(why);
}

}  // namespace godwit::agent

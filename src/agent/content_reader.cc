#include "agent/content_reader.hh"

#include <spdlog/spdlog.h>

#include "qemu/launch.hh"

namespace godwit::agent {

ContentReader::ContentReader(os::Loop& loop, std::shared_ptr<const Elsewhere> elsewhere,
                             std::filesystem::path directory)
    : loop_(loop),
      elsewhere_(std::move(elsewhere)),
      directory_(std::move(directory)),
      digest_(elsewhere_->key()) {}

ContentReader::~ContentReader() {
  for (auto& [content, source] : sources_) {
    source.client.reset();
    source.daemon.reset();
    std::error_code ignored;
    std::filesystem::remove_all(source.directory, ignored);
  }
}

void ContentReader::read(const disk::Digest& digest, std::size_t length, Came came) {
  const Elsewhere::Block* block = elsewhere_->find(digest);
  if (block == nullptr) return refuse(std::move(came), "it was never here");
  Source& source = open(block->content);
  if (!source.broken.empty()) return refuse(std::move(came), source.broken);
  Wanted wanted{.block = *block, .length = length, .came = std::move(came)};
  if (!source.is_ready) return source.waiting.push_back(std::move(wanted));
  read(source, std::move(wanted));
}

void ContentReader::refuse(Came came, const std::string& why) {
  loop_.post([came = std::move(came), why, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) came(fail("{}", why));
  });
}

ContentReader::Source& ContentReader::open(std::uint32_t content) {
  const auto [at, is_new] = sources_.try_emplace(content);
  Source& source = at->second;
  if (!is_new) return source;
  try {
    open(content, source);
  } catch (const SetupError& error) {
    give_up(source, error.what());
  }
  return source;
}

void ContentReader::open(std::uint32_t content, Source& source) {
  const Content& what = elsewhere_->contents()[content];
  source.directory = directory_ / std::to_string(content);
  const auto socket = qemu::place_for_socket(source.directory);
  if (!socket) return give_up(source, socket.error().text);
  source.daemon = std::make_unique<qemu::StorageDaemon>(
      loop_, std::vector{what.disk}, std::vector{what.paths}, *socket,
      [this, &source](const std::string& why) { give_up(source, why); }, qemu::DiskAccess::look);
  source.client = std::make_unique<qemu::BlockClient>(
      loop_, socket->string(), qemu::disk_node(0), [this, &source](const Result<>& done) {
        if (!done) return give_up(source, done.error().text);
        source.is_ready = true;
        for (Wanted& wanted : std::exchange(source.waiting, {})) read(source, std::move(wanted));
      });
}

// Of that source only: what it has is sent.
void ContentReader::give_up(Source& source, const std::string& why) {
  if (!source.broken.empty()) return;
  spdlog::warn("what a disk could be copied from cannot be read: {}", why);
  source.broken = why;
  for (Wanted& wanted : std::exchange(source.waiting, {})) refuse(std::move(wanted.came), why);
}

void ContentReader::read(Source& source, Wanted wanted) {
  if (wanted.block.offset + wanted.length > source.client->size().bytes) {
    return refuse(std::move(wanted.came), "it is not of that length here");
  }
  const auto bytes = std::make_shared<Bytes>(wanted.length);
  source.client->read(wanted.block.offset, *bytes,
                      [this, bytes, wanted = std::move(wanted)](const Result<>& done) {
                        if (!done) return wanted.came(std::unexpected(done.error()));
                        if (digest_(*bytes) != wanted.block.digest) {
                          return wanted.came(fail("it has changed"));
                        }
                        wanted.came(std::move(*bytes));
                      });
}

}  // namespace godwit::agent

#include "agent/image_pages.hh"

#include <algorithm>
#include <utility>

#include "qemu/launch.hh"
#include "qemu/vm_spec.hh"

namespace godwit::agent {
namespace {

using qemu::kPageBytes;

// Read at once: of 64 KiB that are read a Debian that has booted has nine pages, mostly with those
// beside them.
constexpr std::size_t kBlockBytes = 256 << 10;
// A storage daemon of this host that reads a file of it: longer, and it hangs.
constexpr Nanoseconds kDaemonPatience = seconds(20);

}  // namespace

ImagePages::ImagePages(BytesView key, std::filesystem::path directory, Doubted doubted)
    : hash_(key),
      directory_(std::move(directory)),
      doubted_(std::move(doubted)),
      catalogue_(to_bytes(key)) {}

ImagePages::~ImagePages() {
  if (sources_.empty()) return;
  sources_.clear();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

void ImagePages::add(Content content, const std::vector<NamedPage>& pages, std::size_t most) {
  const auto number = static_cast<std::uint32_t>(contents_.size());
  for (const NamedPage& page : pages) {
    if (places_.size() == most) break;
    if (!names_.insert(page.name).second) continue;
    append(catalogue_, page.name);
    places_.push_back({.content = number, .page = page.place});
  }
  contents_.push_back(std::move(content));
}

Result<BytesView> ImagePages::page(std::uint64_t place) {
  if (place >= places_.size()) return fail("there is no such page in an image");
  const Place& at = places_[place];
  const Content& image = contents_[at.content];
  const std::uint64_t offset = at.page * kPageBytes;
  const auto block = this->block(at.content, offset / kBlockBytes);
  if (!block) {
    doubted_(image);
    return fail("image {} cannot be read: {}", image.disk.name, block.error().text);
  }
  const BytesView page = block->subspan(offset % kBlockBytes, kPageBytes);
  const auto names = BytesView(catalogue_).subspan(crypto::KeyedHash::kKeySize);
  constexpr std::size_t kName = crypto::KeyedHash::kSize;
  if (!std::ranges::equal(hash_(page), names.subspan(place * kName, kName))) {
    doubted_(image);
    return fail(
        "image {} here is not what it was, the next move does without it; see "
        "`godwit image verify {}`",
        image.disk.name, image.disk.name);
  }
  return page;
}

Result<BytesView> ImagePages::block(std::uint32_t content, std::uint64_t number) {
  Block& block = blocks_[number % blocks_.size()];
  if (block.content == content && block.number == number) return block.bytes;
  Source& source = open(content);
  const ByteCount size = contents_[content].disk.size;
  const std::uint64_t offset = number * kBlockBytes;
  block.number = UINT64_MAX;
  block.bytes.resize(kBlockBytes);
  const auto length = std::min<std::uint64_t>(kBlockBytes, size.bytes - offset);
  const auto done = read(source, offset, MutableBytes(block.bytes).first(length));
  if (!done) return std::unexpected(done.error());
  block.content = content;
  block.number = number;
  return block.bytes;
}

Result<> ImagePages::read(Source& source, std::uint64_t offset, MutableBytes into) {
  if (!source.broken.empty()) return fail("{}", source.broken);
  bool over = false;
  Result<> result;
  source.client->read(offset, into, [&](Result<> done) {
    result = std::move(done);
    over = true;
  });
  if (!wait(over)) {
    source.broken = "it takes too long";
    source.client.reset();
    return fail("{}", source.broken);
  }
  return result;
}

ImagePages::Source& ImagePages::open(std::uint32_t content) {
  const auto [at, is_new] = sources_.try_emplace(content);
  Source& source = at->second;
  if (!is_new) return source;
  try {
    begin(content, source);
  } catch (const SetupError& error) {
    source.broken = error.what();
  }
  return source;
}

void ImagePages::begin(std::uint32_t content, Source& source) {
  const Content& what = contents_[content];
  if (auto made = qemu::make_directory_for_qemu(directory_); !made) {
    return source.broken = made.error().text, void();
  }
  const auto socket = qemu::place_for_socket(directory_ / std::to_string(content));
  if (!socket) return source.broken = socket.error().text, void();
  bool over = false;
  source.daemon = std::make_unique<qemu::StorageDaemon>(
      loop_, std::vector{what.disk}, std::vector{what.paths}, *socket,
      [&source](const std::string& why) { source.broken = why; }, qemu::DiskAccess::look);
  source.client = std::make_unique<qemu::BlockClient>(loop_, socket->string(), qemu::disk_node(0),
                                                      [&](const Result<>& done) {
                                                        if (!done)
                                                          source.broken = done.error().text;
                                                        over = true;
                                                      });
  if (wait(over)) return;
  source.client.reset();
  source.broken = "its storage daemon does not answer";
}

// False: it took longer than such things may.
bool ImagePages::wait(const bool& over) {
  const Instant deadline = loop_.now() + kDaemonPatience;
  while (!over && loop_.now() < deadline) loop_.run_once(deadline - loop_.now());
  return over;
}

}  // namespace godwit::agent

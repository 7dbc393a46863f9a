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

void ImagePages::expect(std::uint64_t place) {
  if (place >= places_.size()) return;
  if (Block* const block = find(places_[place])) {
    block->is_expected = true;
  } else {
    begin_block(places_[place], true);
  }
}

Result<BytesView> ImagePages::page(std::uint64_t place) {
  if (place >= places_.size()) return fail("there is no such page in an image");
  const Place& at = places_[place];
  const Content& image = contents_[at.content];
  const auto block = this->block(at);
  if (!block) {
    doubted_(image);
    return fail("image {} cannot be read: {}", image.disk.name, block.error().text);
  }
  const BytesView page = block->subspan(at.page * kPageBytes % kBlockBytes, kPageBytes);
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

std::size_t ImagePages::under_way() const {
  return static_cast<std::size_t>(std::ranges::count(blocks_, false, &Block::is_read));
}

ImagePages::Block* ImagePages::find(const Place& place) {
  const std::uint64_t number = place.page * kPageBytes / kBlockBytes;
  const auto found = std::ranges::find_if(blocks_, [&](const Block& block) {
    return block.number == number && block.content == place.content;
  });
  if (found == blocks_.end()) return nullptr;
  found->used = ++uses_;
  return &*found;
}

// In the place of what was not used for longest. Null: all are being read; for one that is only
// expected, or are expected, too.
ImagePages::Block* ImagePages::begin_block(const Place& place, bool is_expected) {
  Block& block = *std::ranges::min_element(blocks_, {}, [](const Block& each) {
    return std::tuple(!each.is_read, each.is_expected, each.used);
  });
  if (!block.is_read || (is_expected && block.is_expected)) return nullptr;
  Source& source = open(place.content);
  const std::uint64_t offset = place.page * kPageBytes / kBlockBytes * kBlockBytes;
  const ByteCount size = contents_[place.content].disk.size;
  block.content = place.content;
  block.number = offset / kBlockBytes;
  block.used = ++uses_;
  block.is_expected = is_expected;
  block.bytes.resize(kBlockBytes);
  block.outcome = source.broken.empty() ? Result<>{} : fail("{}", source.broken);
  if (!block.outcome) return &block;
  block.is_read = false;
  const auto length = std::min<std::uint64_t>(kBlockBytes, size.bytes - offset);
  source.client->read(offset, MutableBytes(block.bytes).first(length), [&block](Result<> done) {
    block.outcome = std::move(done);
    block.is_read = true;
  });
  return &block;
}

Result<BytesView> ImagePages::block(const Place& place) {
  Block* block = find(place);
  if (block == nullptr) block = begin_block(place, false);
  const auto one_is_read = [&] { return std::ranges::any_of(blocks_, &Block::is_read); };
  while (block == nullptr && wait(one_is_read)) block = begin_block(place, false);
  if (block == nullptr || !wait([&] { return block->is_read; })) return fail("it takes too long");
  block->is_expected = false;
  if (!block->outcome) return std::unexpected(block->outcome.error());
  return block->bytes;
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
  if (wait([&] { return over; })) return;
  source.client.reset();
  source.broken = "its storage daemon does not answer";
}

// False: it took longer than such things may.
template <class Over>
bool ImagePages::wait(Over&& over) {
  const Instant deadline = loop_.now() + kDaemonPatience;
  while (!over() && loop_.now() < deadline) loop_.run_once(deadline - loop_.now());
  return over();
}

}  // namespace godwit::agent

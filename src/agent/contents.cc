#include "agent/contents.hh"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "os/priority.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kIndex = ".index";

fs::path index_of(const fs::path& directory, const std::string& name) {
  return directory / fmt::format("{}{}", name, kIndex);
}

// Of what is not there any more, and what an agent that ended was making.
void tidy(const fs::path& directory, const std::vector<Content>& all) {
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    const fs::path& path = at->path();
    const auto of = std::ranges::find(all, path.stem().string(), &Content::name);
    const bool is_index = path.extension() == kIndex || path == pages_of(path);
    if (!is_index || of == all.end()) ::unlink(path.c_str());
  }
}

}  // namespace

Contents::Contents(os::Loop& loop, const Config& config, BytesView key, Images& images,
                   Disks& disks)
    : loop_(loop),
      config_(config),
      images_(images),
      disks_(disks),
      directory_(config.state_dir / "contents"),
      key_(to_bytes(key)) {}

Contents::~Contents() { ending_ = true; }

void Contents::start() {
  std::error_code error;
  fs::create_directories(directory_, error);
  if (!error) fs::permissions(directory_, fs::perms::owner_all, error);
  if (error) {
    spdlog::warn("what is in images is not told to hosts that vms come from: {}: {}",
                 directory_.string(), error.message());
    key_.clear();
  }
  indexer_.post([] { os::yield_to_all(); });
  look();
}

std::vector<Content> Contents::contents_for(const qemu::VmSpec* vm) {
  std::vector<Content> contents;
  for (const ImageRecord& image : images_.ready()) {
    if (vm != nullptr && image.tenant != vm->tenant && !image.is_public) continue;
    contents.push_back({.name = "image." + image.name,
                        .disk = {.name = image.name,
                                 .format = *qemu::parse_disk_format(image.format),
                                 .size = image.virtual_size},
                        .paths = {.file = images_.path(image)},
                        .is_image = true});
  }
  for (const qemu::VmSpec& left : disks_.left()) {
    // What the vm itself left is compared in place, and written over.
    if (vm != nullptr && (left.tenant != vm->tenant || left.id == vm->id)) continue;
    const auto paths = disks_.paths(left);
    for (std::size_t i = 0; i < paths.size(); ++i) {
      contents.push_back({.name = fmt::format("{}.{}", left.id.text(), left.disks[i].name),
                          .disk = left.disks[i],
                          .paths = paths[i]});
    }
  }
  return contents;
}

// Not at once: who tells of a change may not be through with it.
void Contents::look() {
  again_ = true;
  if (key_.empty() || std::exchange(looking_, true)) return;
  loop_.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) begin();
  });
}

void Contents::begin() {
  again_ = false;
  indexer_.post([this, all = contents_for(nullptr), alive = std::weak_ptr(alive_)] {
    tidy(directory_, all);
    for (const Content& content : all) {
      const fs::path index = index_of(directory_, content.name);
      if (ending_ || is_indexed(content, key_, index)) continue;
      const Bytes stamp = stamp_of(content, key_);
      if (const auto found = hopeless_.find(content.name);
          found != hopeless_.end() && found->second == stamp) {
        continue;
      }
      const auto made = make_index(content, key_, index, config_.run_dir / "contents", ending_);
      if (made || ending_) continue;
      hopeless_[content.name] = stamp;
      spdlog::warn("{}: no index: {}", content.name, made.error().text);
    }
    loop_.post([this, alive] {
      if (alive.expired()) return;
      looking_ = false;
      if (again_) look();
    });
  });
}

void Contents::find(const qemu::VmSpec& vm, Found found) {
  if (key_.empty()) return found(nullptr);
  finder_.post([this, contents = contents_for(&vm), found = std::move(found),
                alive = std::weak_ptr(alive_)]() mutable {
    auto elsewhere = std::make_shared<Elsewhere>(key_);
    for (Content& content : contents) {
      const auto blocks = read_index(content, key_, index_of(directory_, content.name));
      if (!blocks) continue;  // not yet
      if (!elsewhere->add(std::move(content), *blocks)) break;
      if (elsewhere->contents().size() == kMostContents) break;
    }
    elsewhere->sort();
    loop_.post([found = std::move(found), alive,
                elsewhere = elsewhere->empty() ? nullptr : std::move(elsewhere)] {
      if (!alive.expired()) found(elsewhere);
    });
  });
}

// Those that its disks began as come first.
void Contents::find_pages(const qemu::VmSpec& vm, std::size_t most, FoundPages found) {
  if (key_.empty() || most == 0) return found(nullptr);
  std::vector<Content> images = contents_for(&vm);
  std::erase_if(images, [](const Content& each) { return !each.is_image; });
  std::ranges::partition(images, [&vm](const Content& each) {
    return std::ranges::any_of(vm.disks, [&each](const qemu::DiskSpec& disk) {
      return disk.image.name == each.disk.name;
    });
  });
  finder_.post([this, most = std::min(most, kMostPages), images = std::move(images),
                directory = config_.run_dir / "pages" / vm.id.text(), found = std::move(found),
                alive = std::weak_ptr(alive_)]() mutable {
    auto pages = std::make_shared<ImagePages>(key_, std::move(directory),
                                              [this, alive](const Content& image) {
                                                loop_.post([this, alive, name = image.name] {
                                                  if (!alive.expired()) doubt(name);
                                                });
                                              });
    for (Content& image : images) {
      if (pages->pages() == most) break;
      const auto named =
          read_page_index(pages_of(index_of(directory_, image.name)), stamp_of(image, key_));
      if (named) pages->add(std::move(image), *named, most);
    }
    pages->seal();
    loop_.post([found = std::move(found), alive,
                pages = pages->pages() == 0 ? nullptr : std::move(pages)] {
      if (!alive.expired()) found(pages);
    });
  });
}

// It is indexed anew, as it is by now.
void Contents::doubt(const std::string& name) {
  spdlog::warn("{} has not what its index says", name);
  ::unlink(pages_of(index_of(directory_, name)).c_str());
  look();
}

}  // namespace godwit::agent

#pragma once
// Pages of memory that this host's images have (page_index.hh), for one move to here: a guest whose
// disk began as an image has much of it in its page cache. Read when a page is referred to, by a
// storage daemon of its own, which looks only; each is compared with its name before it is used.
// One that is not as its name says ends the move, the guest stays where it is, and the next is not
// told of what that image had.
//
// Made by one thread and used by another, which waits for the daemon in a loop of its own.
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <unordered_set>
#include <vector>

#include "agent/content_file.hh"
#include "agent/page_index.hh"
#include "codec/known_pages.hh"
#include "os/loop.hh"
#include "qemu/block_client.hh"
#include "qemu/storage_daemon.hh"

namespace godwit::agent {

class ImagePages final : public codec::OtherPages {
 public:
  // An image has not what its index says. Called by the thread that asked for the page.
  using Doubted = std::function<void(const Content& image)>;
  // `key`: that names are made with. `directory`: for sockets, in one that is there; made when the
  // first page is read.
  ImagePages(BytesView key, std::filesystem::path directory, Doubted doubted);
  ~ImagePages() override;

  // As many of them as there is room for among `most`, and no page twice.
  void add(Content content, const std::vector<NamedPage>& pages, std::size_t most);
  // Before the first is read.
  void seal() { names_ = {}; }
  std::size_t pages() const { return places_.size(); }

  BytesView catalogue() const override { return catalogue_; }
  void expect(std::uint64_t place) override;
  std::size_t under_way() const;  // reads of images
  Result<BytesView> page(std::uint64_t place) override;

 private:
  struct Place {
    std::uint32_t content = 0;  // of contents_
    std::uint32_t page = 0;     // of the disk
  };
  struct Source {
    std::unique_ptr<qemu::StorageDaemon> daemon{};
    std::unique_ptr<qemu::BlockClient> client{};
    bool is_ready = false;
    std::string broken{};  // and why
  };
  // What is read, or was lately: neighbours in a file are neighbours in a guest's memory, mostly.
  struct Block {
    std::uint32_t content = 0;
    std::uint64_t number = UINT64_MAX;
    Bytes bytes{};
    Result<> outcome{};
    bool is_read = true;  // not under way any more
    bool is_expected = false;
    std::uint64_t used = 0;  // of uses_
  };

  Block* find(const Place& place);
  Block* begin_block(const Place& place, bool is_expected);
  Result<BytesView> block(const Place& place);
  Source& open(std::uint32_t content);
  void begin(std::uint32_t content, Source& source);
  template <class Over>
  bool wait(Over&& over);

  crypto::KeyedHash hash_;
  std::filesystem::path directory_;
  Doubted doubted_;
  std::vector<Content> contents_;
  std::vector<Place> places_;
  Bytes catalogue_;
  std::unordered_set<codec::PageName, codec::HashOfName> names_;  // until sealed
  os::Loop loop_;
  std::array<Block, 64> blocks_;
  std::uint64_t uses_ = 0;
  std::map<std::uint32_t, Source> sources_;  // the last: they read into blocks_
};

}  // namespace godwit::agent

#include "qemu/receive_ring.hh"

#include <algorithm>
#include <charconv>
#include <memory>
#include <ranges>

#include "qemu/json.hh"
#include "qemu/trapped_frame.hh"

namespace godwit::qemu {
namespace {

using nlohmann::json;
using Words = std::vector<std::uint32_t>;

struct Ring {
  std::uint64_t descriptors = 0, available = 0, used = 0;  // guest-physical
  std::size_t size = 0;
  std::uint16_t filled = 0;  // buffers ever, modulo 2^16
  bool is_full = false;      // QEMU found no more buffers
  std::size_t newest() const { return static_cast<std::uint16_t>(filled - 1) % size; }
};

Result<Ring> parse_ring(const json& status) {
  const Ring ring{
      .descriptors = unsigned_at(status, "vring-desc"),
      .available = unsigned_at(status, "vring-avail"),
      .used = unsigned_at(status, "vring-used"),
      .size = unsigned_at(status, "vring-num"),
      .filled = static_cast<std::uint16_t>(unsigned_at(status, "used-idx")),
      .is_full = unsigned_at(status, "last-avail-idx") == unsigned_at(status, "shadow-avail-idx")};
  if (ring.used == 0 || ring.size == 0) return fail("the guest's driver has no receive ring");
  return ring;
}

void read_words(Qmp& qmp, std::uint64_t address, std::size_t count, Answer<Words> answer) {
  qmp.execute("human-monitor-command",
              {{"command-line", fmt::format("xp /{}wx {:#x}", count, address)}},
              [count, answer = std::move(answer)](Result<json> reply) mutable {
                if (!reply) return answer(std::unexpected(reply.error()));
                Words words = parse_words(reply->is_string() ? reply->get<std::string>() : "");
                if (words.size() != count) return answer(fail("QEMU does not show memory"));
                answer(std::move(words));
              });
}

// `available`: flags and index in one word, then the entries, two in a word.
bool is_given_out(const Ring& ring, const Words& available, std::uint32_t descriptor) {
  const auto entry = [&](std::size_t i) { return (available[i / 2] >> (i % 2 * 16)) & 0xffff; };
  const auto end = static_cast<std::uint16_t>(entry(1));
  for (std::uint16_t i = ring.filled; i != end; ++i) {
    if (entry(2 + i % ring.size) == descriptor) return true;
  }
  return false;
}

class NewestReceived final : public std::enable_shared_from_this<NewestReceived> {
 public:
  NewestReceived(Qmp& qmp, bool stopped_by_itself, Answer<Bytes> answer)
      : qmp_(qmp), stopped_by_itself_(stopped_by_itself), answer_(std::move(answer)) {}

  void start(const std::string& nic) {
    qmp_.execute(
        "x-query-virtio-queue-status",
        {{"path", fmt::format("/machine/peripheral/{}/virtio-backend", nic)}, {"queue", 0}},
        [self = shared_from_this()](Result<json> reply) {
          if (!reply) return self->answer_(std::unexpected(reply.error()));
          const auto ring = parse_ring(*reply);
          if (!ring) return self->answer_(std::unexpected(ring.error()));
          if (!ring->is_full && !self->stopped_by_itself_) return self->answer_(Bytes{});
          self->ring_ = *ring;
          self->read_rings();
        });
  }

 private:
  void read(std::uint64_t address, std::size_t count, std::move_only_function<void(Words)> next) {
    read_words(qmp_, address, count,
               [self = shared_from_this(), next = std::move(next)](Result<Words> words) mutable {
                 if (words) return next(std::move(*words));
                 if (self->answer_)
                   std::exchange(self->answer_, {})(std::unexpected(words.error()));
               });
  }
  void read_rings() {
    constexpr std::size_t kHeader = 4;
    read(ring_.used + kHeader + ring_.newest() * 8, 2, [this](const Words& element) {
      descriptor_ = element[0];
      length_ = element[1];
    });
    read(ring_.available, 1 + (ring_.size + 1) / 2, [this](const Words& available) {
      if (!answer_) return;
      if (descriptor_ >= ring_.size || length_ < sizeof(std::uint32_t)) {
        return answer_(fail("the receive ring is empty"));
      }
      if (is_given_out(ring_, available, descriptor_)) {
        return answer_(fail("the guest has given the newest buffer's descriptor out again"));
      }
      read_buffer();
    });
  }
  void read_buffer() {
    read(ring_.descriptors + descriptor_ * 16, 4, [this](const Words& descriptor) {
      const std::uint64_t address = descriptor[0] | std::uint64_t{descriptor[1]} << 32;
      if (descriptor[2] < length_) return answer_(fail("the newest buffer is a chain"));
      const std::size_t count = std::min<std::size_t>(length_, kNewestBytes) / 4;
      read(address + length_ - count * 4, count, [this](const Words& words) {
        Bytes bytes;
        for (const std::uint32_t word : words) {
          for (const int shift : {0, 8, 16, 24}) bytes.push_back(std::byte(word >> shift));
        }
        answer_(std::move(bytes));
      });
    });
  }

  Qmp& qmp_;
  bool stopped_by_itself_;
  Answer<Bytes> answer_;
  Ring ring_;
  std::uint32_t descriptor_ = 0, length_ = 0;
};

}  // namespace

std::vector<std::uint32_t> parse_words(std::string_view printed) {
  Words words;
  for (const auto line : std::views::split(printed, '\n')) {
    std::string_view text(line);
    const auto colon = text.find(':');
    if (colon == text.npos) continue;
    text.remove_prefix(colon + 1);
    for (const auto part : std::views::split(text, ' ')) {
      std::string_view token(part);
      while (!token.empty() && token.back() == '\r') token.remove_suffix(1);
      if (token.empty()) continue;
      std::uint32_t word = 0;
      constexpr std::string_view kPrefix = "0x";
      if (!token.starts_with(kPrefix)) return {};
      token.remove_prefix(kPrefix.size());
      const auto end = token.data() + token.size();
      if (std::from_chars(token.data(), end, word, 16) != std::from_chars_result{end, {}})
        return {};
      words.push_back(word);
    }
  }
  return words;
}

void newest_received_after_barrier(Qmp& qmp, const std::vector<std::string>& nics,
                                   bool stopped_by_itself,
                                   std::move_only_function<void(std::vector<Bytes>)> done) {
  struct Waiting {
    std::size_t answers;
    std::vector<Bytes> newest;
    std::move_only_function<void(std::vector<Bytes>)> done;
    void answered() {
      if (--answers == 0) done(std::move(newest));
    }
  };
  const auto waiting =
      std::make_shared<Waiting>(nics.size() + 1, std::vector<Bytes>(nics.size()), std::move(done));
  main_loop_barrier(qmp, [waiting](const Result<>&) { waiting->answered(); });
  for (std::size_t i = 0; i < nics.size(); ++i) {
    auto answer = [waiting, i](Result<Bytes> newest) {
      waiting->newest[i] = std::move(newest).value_or(Bytes{});
      waiting->answered();
    };
    std::make_shared<NewestReceived>(qmp, stopped_by_itself, std::move(answer))->start(nics[i]);
  }
}

}  // namespace godwit::qemu

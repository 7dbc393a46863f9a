#include "agent/images.hh"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <array>
#include <nlohmann/json.hpp>

#include "agent/records.hh"
#include "base/id.hh"
#include "os/wall_clock.hh"
#include "qemu/json.hh"
#include "qemu/launch.hh"

namespace godwit::agent {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPartial = ".partial";
constexpr std::size_t kSumBytes = 32;

nlohmann::json to_json(const ImageRecord& image) {
  return {{"name", image.name},
          {"tenant", image.tenant},
          {"public", image.is_public},
          {"format", image.format},
          {"size_bytes", image.size.bytes},
          {"virtual_size_bytes", image.virtual_size.bytes},
          {"sha256", image.sha256},
          {"added", image.added}};
}

ImageRecord image_record(const nlohmann::json& json) {
  ImageRecord image{.name = qemu::text_at(json, "name"),
                    .tenant = qemu::text_at(json, "tenant"),
                    .is_public = qemu::flag_at(json, "public"),
                    .format = qemu::text_at(json, "format"),
                    .size = {qemu::unsigned_at(json, "size_bytes")},
                    .virtual_size = {qemu::unsigned_at(json, "virtual_size_bytes")},
                    .sha256 = qemu::text_at(json, "sha256"),
                    .added = static_cast<std::int64_t>(qemu::unsigned_at(json, "added"))};
  if (!is_valid_name(image.name) || (image.format != "qcow2" && image.format != "raw")) {
    fail_setup("the agent's store holds a damaged record: an image '{}'", image.name);
  }
  return image;
}

// Empty if it is missing; a wish of another type must not be passed over.
Result<std::string> wish(const nlohmann::json& request, const char* key) {
  if (qemu::member(request, key).is_null()) return std::string();
  return text_field(request, key);
}

Result<std::string> checked_sum(const std::string& text) {
  const Bytes sum = from_hex(text);
  if (text.empty() || sum.size() == kSumBytes) return to_hex(sum);
  return fail("'{}' is no SHA-256: it has 64 hex digits, as sha256sum prints them", text);
}

Result<ImageRecord> new_record(const nlohmann::json& request) {
  const auto name = text_field(request, "name");
  if (!name) return std::unexpected(name.error());
  const auto tenant = text_field_or(request, "tenant", kDefaultTenant);
  for (const auto& text : {*name, tenant}) {
    if (!is_valid_name(text)) {
      return fail("'{}' is no name: use 1 to 63 of a-z, 0-9 and '-'", text);
    }
  }
  const auto is_public = flag_field(request, "public", false);
  if (!is_public) return std::unexpected(is_public.error());
  const auto format = wish(request, "format");
  if (!format) return std::unexpected(format.error());
  if (!format->empty() && *format != "qcow2" && *format != "raw") {
    return fail("image {}: '{}' is no format of an image here: qcow2 or raw", *name, *format);
  }
  return ImageRecord{.name = *name,
                     .tenant = tenant,
                     .is_public = *is_public,
                     .format = *format,
                     .size = {},
                     .virtual_size = {},
                     .sha256 = {},
                     .added = os::wall_clock_seconds()};
}

// Opened once: what is copied is what was looked at.
Result<ImageSource> open_source(const nlohmann::json& request, const std::string& host) {
  const auto file = text_field(request, "file");
  if (!file) return std::unexpected(file.error());
  const auto text = wish(request, "sha256");
  if (!text) return std::unexpected(text.error());
  auto sum = checked_sum(*text);
  if (!sum) return std::unexpected(sum.error());
  if (!file->starts_with('/')) return fail("'{}': give the path from / of the file", *file);
  // A FIFO would wait for its writer.
  os::Fd fd(::open(file->c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) {
    return fail("host {} has no file {} that godwitd can read ({})", host, *file,
                errno_text("open it"));
  }
  struct stat about{};
  if (::fstat(fd.number(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return fail(
        "{} of host {} is no regular file: make one of it first (qemu-img convert -O qcow2 {} NEW)",
        *file, host, *file);
  }
  return ImageSource{.name = *file,
                     .file = std::move(fd),
                     .size = {static_cast<std::uint64_t>(about.st_size)},
                     .format = {},
                     .sha256 = *std::move(sum)};
}

std::vector<fs::path> partials_in(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == kPartial) found.push_back(at->path());
  }
  if (error) spdlog::warn("cannot tidy up {}: {}", directory.string(), error.message());
  return found;
}

}  // namespace

Images::Images(os::Loop& loop, const Config& config, store::Store& store, Events& events)
    : loop_(loop), config_(config), store_(store), events_(events) {}

Images::~Images() {
  for (const auto& [name, copy] : unfinished_) {
    if (copy.work) copy.work->cancelled = true;
  }
  for (const auto& [name, work] : verifying_) work->cancelled = true;
}

fs::path Images::path(const ImageRecord& image) const {
  return config_.library() / fmt::format("{}.{}", image.name, image.format);
}

fs::path Images::partial(const std::string& name) const {
  return config_.library() / fmt::format("{}{}", name, kPartial);
}

void Images::start(UsersOf users_of) {
  users_of_ = std::move(users_of);
  for (const auto& document : store_.list("image")) find_file(image_record(document.body));
  for (const auto& file : partials_in(config_.library())) ::unlink(file.c_str());
}

void Images::find_file(const ImageRecord& image) {
  const fs::path file = path(image);
  std::error_code error;
  // An agent that ended between the record and the renaming of its file, or the other way round.
  if (!fs::exists(file, error)) fs::rename(partial(image.name), file, error);
  if (fs::file_size(file, error) == image.size.bytes && !error) return;
  damaged_[image.name] =
      fmt::format("{} is gone or was changed: remove the image, and add it again", file.string());
  spdlog::error("image {} is damaged: {}", image.name, damaged_[image.name]);
}

std::optional<ImageRecord> Images::find(const std::string& name) const {
  const auto document = store_.find("image", name);
  if (!document) return std::nullopt;
  return image_record(*document);
}

Result<> Images::check_is_free(const ImageRecord& image) const {
  const auto other = unfinished_.find(image.name);
  const bool failed = other != unfinished_.end() && !other->second.work;
  const bool again = failed && other->second.record.tenant == image.tenant;
  if (find(image.name) || (other != unfinished_.end() && !again)) {
    return fail("there is an image '{}' already: choose another name", image.name);
  }
  if (unfinished_.size() < kMostUnfinishedImages || again) return {};
  return fail("host {} has {} images that are being copied or could not be: wait, or remove some",
              config_.name, unfinished_.size());
}

Result<> Images::add(const nlohmann::json& request) {
  auto image = new_record(request);
  if (!image) return std::unexpected(image.error());
  if (auto free = check_is_free(*image); !free) return free;
  auto source = open_source(request, config_.name);
  if (!source) return std::unexpected(source.error());
  source->format = image->format;
  image->size = source->size;
  copy(*image, *std::move(source));
  return {};
}

void Images::copy(const ImageRecord& image, ImageSource source) {
  auto work = std::make_shared<ImageWork>();
  unfinished_[image.name] = {.record = image, .work = work, .error = {}};
  publish(image, "copying");
  std::vector<std::string> notices;  // not news: each vm that starts tells them
  worker_.post([this, alive = std::weak_ptr(alive_), name = image.name, source = std::move(source),
                to = partial(image.name), qemu = qemu::qemu_user(notices), work] {
    auto result = copy_image(source, to, qemu, *work);
    loop_.post([this, alive, name, work, result = std::move(result)] {
      if (!alive.expired()) copied(name, work, result);
    });
  });
}

void Images::copied(const std::string& name, const Work& work, const Result<ImageFacts>& result) {
  const auto found = unfinished_.find(name);
  if (found == unfinished_.end() || found->second.work != work) {
    // Removed meanwhile. If it was added again then the file is that copy's by now.
    if (found == unfinished_.end()) ::unlink(partial(name).c_str());
    return;
  }
  ImageRecord& image = found->second.record;
  Result<> kept;
  if (result) {
    image.format = result->format;
    image.size = result->size;
    image.virtual_size = result->virtual_size;
    image.sha256 = result->sha256;
    kept = keep(image);
  }
  if (result && kept) {
    const ImageRecord ready = image;
    unfinished_.erase(found);
    return publish(ready, "ready");
  }
  found->second.work = nullptr;
  found->second.error = result ? kept.error().text : result.error().text;
  spdlog::error("image {}: {}", name, found->second.error);
  publish(image, "failed");
}

// The record first: if the agent ends behind it, start() finds the file under its first name.
Result<> Images::keep(const ImageRecord& image) {
  auto done = store_.record("image", image.name, to_json(image));
  if (done && ::rename(partial(image.name).c_str(), path(image).c_str()) != 0) {
    done = fail("{}", errno_text("rename to " + path(image).string()));
  }
  if (done) done = sync_directory(config_.library());
  if (done) return {};
  store_.erase("image", image.name);
  ::unlink(partial(image.name).c_str());
  ::unlink(path(image).c_str());
  return done;
}

Result<> Images::verify(const std::string& name) {
  const auto image = find(name);
  if (!image) return fail("there is no image '{}' that could be verified", name);
  if (verifying_.contains(name)) return {};
  auto work = std::make_shared<ImageWork>();
  verifying_[name] = work;
  publish(*image, "verifying");
  worker_.post([this, alive = std::weak_ptr(alive_), name, file = path(*image), work] {
    auto sum = sum_image(file, *work);
    loop_.post([this, alive, name, work, sum = std::move(sum)] {
      if (!alive.expired()) verified(name, work, sum);
    });
  });
  return {};
}

void Images::verified(const std::string& name, const Work& work, const Result<std::string>& sum) {
  const auto found = verifying_.find(name);
  if (found == verifying_.end() || found->second != work) return;  // it was removed
  verifying_.erase(found);
  const ImageRecord image = find(name).value();
  if (sum == image.sha256) {
    damaged_.erase(name);
    return publish(image, "ready");
  }
  damaged_[name] =
      sum ? fmt::format(
                "{} has the SHA-256 {}, not {} as when it was added: remove the image, "
                "and add it again",
                path(image).string(), *sum, image.sha256)
          : sum.error().text;
  spdlog::error("image {} is damaged: {}", name, damaged_[name]);
  publish(image, "damaged");
}

Result<> Images::remove(const std::string& name) {
  if (const auto copy = unfinished_.extract(name)) {
    if (copy.mapped().work) copy.mapped().work->cancelled = true;
    publish(copy.mapped().record, "removed");
    return {};
  }
  const auto image = find(name);
  if (!image) return fail("there is no image '{}' on host {}", name, config_.name);
  if (const auto vms = users_of_(name); !vms.empty()) {
    return fail("image {} is used by disks of {}: remove those vms first", name,
                fmt::join(vms, ", "));
  }
  if (const auto work = verifying_.extract(name)) work.mapped()->cancelled = true;
  if (::rename(path(*image).c_str(), partial(name).c_str()) != 0 && errno != ENOENT) {
    return fail("{}", errno_text("remove " + path(*image).string()));
  }
  store_.erase("image", name);
  damaged_.erase(name);
  // Giving back a large file keeps the kernel busy.
  worker_.post([file = partial(name)] { ::unlink(file.c_str()); });
  publish(*image, "removed");
  return {};
}

Result<ImageRecord> Images::usable(const std::string& name, const std::string& tenant) {
  const auto copy = unfinished_.find(name);
  auto image = copy == unfinished_.end() ? find(name) : copy->second.record;
  if (!image || (image->tenant != tenant && !image->is_public)) {
    return fail("there is no image '{}' on host {}: see godwit image ls", name, config_.name);
  }
  if (copy != unfinished_.end()) {
    return copy->second.work ? fail("image {} is still being copied: try again later", name)
                             : fail("image {} could not be copied: {}", name, copy->second.error);
  }
  if (const auto damaged = damaged_.find(name); damaged != damaged_.end()) {
    return fail("image {} is damaged: {}", name, damaged->second);
  }
  return *image;
}

std::vector<ImageRecord> Images::ready() const {
  std::vector<ImageRecord> ready;
  for (const auto& document : store_.list("image")) {
    ImageRecord image = image_record(document.body);
    if (!damaged_.contains(image.name)) ready.push_back(std::move(image));
  }
  return ready;
}

void Images::publish(const ImageRecord& image, std::string_view state) {
  events_.publish("image", {{"name", image.name},
                            {"tenant", image.tenant},
                            {"public", image.is_public},
                            {"state", state}});
}

nlohmann::json Images::describe(const ImageRecord& image) const {
  nlohmann::json json = to_json(image);
  const auto verifying = verifying_.find(image.name);
  const auto damaged = damaged_.find(image.name);
  json["state"] = verifying != verifying_.end() ? "verifying"
                  : damaged != damaged_.end()   ? "damaged"
                                                : "ready";
  if (verifying != verifying_.end()) json["done_bytes"] = verifying->second->done_bytes.load();
  if (damaged != damaged_.end()) json["error"] = damaged->second;
  json["used_by"] = users_of_(image.name);
  return json;
}

nlohmann::json Images::describe(const Unfinished& unfinished) const {
  nlohmann::json json = to_json(unfinished.record);
  json["state"] = unfinished.work ? "copying" : "failed";
  if (unfinished.work) json["done_bytes"] = unfinished.work->done_bytes.load();
  if (!unfinished.work) json["error"] = unfinished.error;
  json["used_by"] = nlohmann::json::array();
  return json;
}

std::vector<nlohmann::json> Images::list() {
  std::map<std::string, nlohmann::json> by_name;
  for (const auto& document : store_.list("image")) {
    by_name[document.key] = describe(image_record(document.body));
  }
  for (const auto& [name, unfinished] : unfinished_) by_name[name] = describe(unfinished);
  std::vector<nlohmann::json> all;
  all.reserve(by_name.size());
  for (auto& [name, json] : by_name) all.push_back(std::move(json));
  return all;
}

std::optional<nlohmann::json> Images::show(const std::string& name) {
  if (const auto copy = unfinished_.find(name); copy != unfinished_.end()) {
    return describe(copy->second);
  }
  const auto image = find(name);
  if (!image) return std::nullopt;
  return describe(*image);
}

}  // namespace godwit::agent

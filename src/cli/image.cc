// godwit image add|ls|show|verify|rm
#include <fmt/ranges.h>

#include <ostream>

#include "base/bytes.hh"
#include "base/utc_text.hh"
#include "cli/interrupt.hh"
#include "cli/options.hh"
#include "cli/progress.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

constexpr Nanoseconds kLookInterval = milliseconds(250);
constexpr std::size_t kSumBytes = 32;
constexpr double kBitsPerByte = 8;

struct NewImage {
  std::string name, file, format, sha256, tenant;
  bool is_public = false, detach = false;
};

std::vector<std::string> users_of(const json& image) {
  return image.value("used_by", std::vector<std::string>());
}

std::string tenant_of(const json& image) {
  return text_of(image, "tenant") + (image.value("public", false) ? " (public)" : "");
}

void list_images(Context& context) {
  const json images = context.fetch("/v1/images");
  if (context.as_json) return context.print_json(images);
  Table table({{"IMAGE"},
               {"FORMAT"},
               {"SIZE", Align::right},
               {"FILE", Align::right},
               {"STATE"},
               {"USED BY"},
               {"TENANT"}});
  for (const json& image : images) {
    const auto users = users_of(image);
    table.row({text_of(image, "name"), text_of(image, "format"),
               bytes_of(image, "virtual_size_bytes"), bytes_of(image, "size_bytes"),
               text_of(image, "state"),
               users.empty() ? "-" : fmt::format("{}", fmt::join(users, ",")), tenant_of(image)});
  }
  context.io.out << table.text("no images");
}

std::string image_text(const json& image) {
  std::vector<std::pair<std::string, std::string>> lines = {
      {"image", text_of(image, "name")},
      {"tenant", tenant_of(image)},
      {"state", text_of(image, "state")},
      {"format", text_of(image, "format")},
      {"disk", bytes_of(image, "virtual_size_bytes")},
      {"file", bytes_of(image, "size_bytes")},
      {"sha256", text_of(image, "sha256")},
      {"added", utc_text(static_cast<std::time_t>(number_of(image, "added")))},
      {"used by", fmt::format("{}", fmt::join(users_of(image), ", "))}};
  if (image.contains("error")) lines.emplace_back("error", text_of(image, "error"));
  return pairs(lines);
}

void show_image(Context& context, const std::string& name) {
  const json image = context.fetch(path_of("images", name));
  if (context.as_json) return context.print_json(image);
  context.io.out << image_text(image);
}

bool is_busy(const json& image) {
  const std::string state = image.value("state", "");
  return state == "copying" || state == "verifying";
}

// As Progress shows it; the rate is that since we look.
json progress_of(const json& image, Nanoseconds elapsed) {
  const double done = number_of(image, "done_bytes");
  const double size = number_of(image, "size_bytes");
  json progress = {{"phase", image.value("state", "")},
                   {"done_bytes", static_cast<std::uint64_t>(done)},
                   {"size_bytes", static_cast<std::uint64_t>(size)}};
  const double rate =
      done * 1e9 / static_cast<double>(std::max(elapsed.count(), Nanoseconds::rep{1}));
  if (done > 0) {
    progress["rate_bps"] = rate * kBitsPerByte;
    progress["eta_s"] = (size - done) / rate;
  }
  return progress;
}

// Shows what the agent does with the image until it is through. Nothing: Ctrl-C came before.
std::optional<json> follow_image(const Context& context, json image) {
  const std::string path = path_of("images", image.value("name", ""));
  const Instant began = context.io.clock.now();
  Interrupt interrupt;
  Progress progress(context.io);
  while (is_busy(image)) {
    progress.show(progress_of(image, context.io.clock.now() - began));
    interrupt.wait(kLookInterval);
    if (interrupt.take() != Interrupt::Cause::none) return std::nullopt;
    image = context.fetch(path);
  }
  return image;
}

json body_of(const Context& context, const NewImage& image) {
  json body = {{"name", image.name}};
  set_path(context, body, "file", image.file);
  set_if_given(body, "format", image.format);
  set_if_given(body, "sha256", image.sha256);
  set_if_given(body, "tenant", image.tenant);
  if (image.is_public) body["public"] = true;
  return body;
}

void add_one(Context& context, const NewImage& wish) {
  json begun = context.post("/v1/images", body_of(context, wish));
  if (wish.detach) {
    if (context.as_json) context.print_json(begun);
    return context.say(fmt::format("image {} is being copied", wish.name));
  }
  const auto image = follow_image(context, std::move(begun));
  const bool is_ready = image && image->value("state", "") == "ready";
  // What failed is told here; nobody has to clear it away.
  if (!is_ready) context.remove(path_of("images", wish.name));
  if (!image) {
    throw Failure(ExitStatus::failed, fmt::format("interrupted: image {} is removed", wish.name));
  }
  if (!is_ready) {
    throw Failure(ExitStatus::failed,
                  fmt::format("image {}: {}", wish.name, text_of(*image, "error")));
  }
  if (context.as_json) return context.print_json(*image);
  context.say(fmt::format("image {} is ready: {}, a disk of {}, SHA-256 {}", wish.name,
                          text_of(*image, "format"), bytes_of(*image, "virtual_size_bytes"),
                          text_of(*image, "sha256")));
}

void verify_image(Context& context, const std::string& name) {
  const auto image = follow_image(context, context.post(path_of("images", name, "verify")));
  if (!image) {
    throw Failure(
        ExitStatus::failed,
        fmt::format("no longer watching; `godwit image show {}` tells what came of it", name));
  }
  if (context.as_json) context.print_json(*image);
  if (image->value("state", "") != "ready") {
    throw Failure(ExitStatus::failed,
                  fmt::format("image {} is {}: {}", name, text_of(*image, "state"),
                              text_of(*image, "error")));
  }
  context.say(fmt::format("image {} is as it was added", name));
}

void add_add(CLI::App& noun, Context& context) {
  auto* add = noun.add_subcommand("add", "Copy a disk image into this host's library");
  auto image = std::make_shared<NewImage>();
  add_name(*add, "NAME", image->name, "Name of the new image")->required();
  add->add_option("FILE", image->file, "Its file, qcow2 or raw; without a backing file")
      ->required();
  add->add_option("--format", image->format, "What the file is (default: by its contents)")
      ->check(CLI::IsMember({"qcow2", "raw"}));
  add->add_option("--sha256", image->sha256, "Refuse a file with another SHA-256")
      ->type_name("HEX")
      ->check([](const std::string& text) {
        return from_hex(text).size() == kSumBytes
                   ? std::string()
                   : fmt::format("'{}' has not the 64 hex digits of a SHA-256", text);
      });
  add->add_flag("--public", image->is_public, "For disks of every tenant");
  add_name(*add, "--tenant", image->tenant, "Tenant (default: default)")->type_name("TENANT");
  add->add_flag("--detach", image->detach, "Do not wait");
  add_json(*add, context);
  add->callback([&context, image] { add_one(context, *image); });
}

CLI::App* add_on_image(CLI::App& noun, const char* verb, const char* help,
                       const std::shared_ptr<std::string>& name) {
  auto* app = noun.add_subcommand(verb, help);
  add_name(*app, "IMAGE", *name, "Its name")->required();
  return app;
}

}  // namespace

void add_image(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("image", "Disk images of a host, for vms' disks to begin as")
                   ->require_subcommand(1);
  const auto name = std::make_shared<std::string>();
  add_add(*noun, context);

  auto* ls = noun->add_subcommand("ls", "List the images of this agent's host");
  add_json(*ls, context);
  ls->callback([&context] { list_images(context); });

  auto* show = add_on_image(*noun, "show", "Show one image", name);
  add_json(*show, context);
  show->callback([&context, name] { show_image(context, *name); });

  auto* verify = add_on_image(*noun, "verify", "Read it again, and compare its SHA-256", name);
  add_json(*verify, context);
  verify->callback([&context, name] { verify_image(context, *name); });

  add_on_image(*noun, "rm", "Remove an image that no vm uses", name)->callback([&context, name] {
    context.remove(path_of("images", *name));
    context.say(fmt::format("image {} removed", *name));
  });
}

}  // namespace godwit::cli

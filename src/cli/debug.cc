// godwit debug stream record|bench: what is of use to those who work on Godwit, and to the curious.
#include <algorithm>
#include <optional>
#include <ostream>

#include "cli/options.hh"
#include "cli/progress.hh"
#include "cli/stream_bench.hh"
#include "cli/stream_record.hh"
#include "cli/table.hh"

namespace godwit::cli {
namespace {

constexpr std::uint64_t kDefaultRounds = 2;
constexpr int kMostRounds = 1000;
constexpr int kPeerLevel = 3;
constexpr int kBoundLevel = 19;
constexpr Nanoseconds kQuiet = seconds(1);  // nothing is shown of what takes less
constexpr Nanoseconds kShowInterval = milliseconds(200);

struct BenchOptions {
  std::string file, cache;
  std::vector<int> levels = {1, 2};  // what a move begins with, and the next
  int windows = 1;
  bool bound = false;
};

// What is done with the file now, how far it is, and how fast.
class Meter final {
 public:
  Meter(Io& io, std::string what, std::uint64_t size)
      : io_(io), progress_(io), what_(std::move(what)), size_(size), begun_(io.clock.now()) {}

  void passed(std::uint64_t bytes) {
    const Instant now = io_.clock.now();
    if (!io_.err_is_terminal || now - begun_ < kQuiet || now - shown_ < kShowInterval) return;
    shown_ = now;
    const double rate =
        static_cast<double>(bytes) / std::chrono::duration<double>(now - begun_).count();
    const auto per_second = ByteCount{static_cast<std::uint64_t>(rate)};
    progress_.show(
        {{"phase", fmt::format("{}  {} %  {}/s", what_, bytes * 100 / size_, to_text(per_second))},
         {"eta_s", static_cast<double>(size_ - bytes) / std::max(rate, 1.0)}});
  }

 private:
  Io& io_;
  Progress progress_;
  std::string what_;
  std::uint64_t size_;
  Instant begun_, shown_{};
};

template <class T>
T checked(Result<T> result) {
  if (!result) throw Failure(ExitStatus::failed, result.error().text);
  return std::move(*result);
}

double gb_per_s(std::uint64_t bytes, Nanoseconds time) {
  return static_cast<double>(bytes) / static_cast<double>(std::max<std::int64_t>(time.count(), 1));
}

double ratio(std::uint64_t from, std::uint64_t to) {
  return static_cast<double>(from) / static_cast<double>(std::max<std::uint64_t>(to, 1));
}

class Bench final {
 public:
  Bench(Context& context, const StreamFile& file) : context_(context), file_(file) {}

  json run(const BenchOptions& options, codec::Settings settings) {
    stream::QemuStreamStats stream;
    {
      Meter meter(context_.io, "reading", file_.size());
      stream = checked(file_.survey([&](std::uint64_t bytes) { meter.passed(bytes); }));
    }
    settings.level = 0;
    const auto only_pages = godwit_coding(settings);
    add("pages", *only_pages);
    for (const int level : options.levels) {
      settings.level = level;
      add(fmt::format("pages, zstd -{}", level), *godwit_coding(settings));
    }
    add(fmt::format("zstd -{} --long={}", kPeerLevel, kZstdWindowBits), *zstd_coding(kPeerLevel));
    if (options.bound) {
      add(fmt::format("unique pages, zstd -{} --long={}", kBoundLevel, kZstdWindowBits),
          *unique_pages(kBoundLevel));
    }
    return {{"file", file_.path()},
            {"bytes", file_.size()},
            {"memory_bytes", stream.ram_bytes},
            {"pages", stream.pages},
            {"zero_pages", stream.zero_pages},
            {"rounds", stream.rounds},
            {"settings",
             {{"levels", options.levels},
              {"cache_bytes", settings.cache},
              {"window_bits", settings.window_bits},
              {"windows", settings.windows}}},
            {"encodings", encodings(*only_pages->stats())},
            {"codings", codings_},
            {"exact", true}};  // or measure() had failed
  }

 private:
  void add(const std::string& name, Coding& coding) {
    Meter meter(context_.io, name, file_.size());
    const auto measured =
        checked(measure(coding, file_, [&](std::uint64_t bytes) { meter.passed(bytes); }));
    json row = {{"name", name},
                {"encoded_bytes", measured.coded},
                {"ratio", ratio(measured.raw, measured.coded)},
                {"encode_gb_per_s", gb_per_s(measured.raw, measured.encode_cpu)},
                {"decode_gb_per_s", nullptr}};
    if (coding.decodes()) row["decode_gb_per_s"] = gb_per_s(measured.raw, measured.decode_cpu);
    codings_.push_back(std::move(row));
  }

  static json encodings(const codec::Stats& stats) {
    json rows = json::array();
    for (std::size_t i = 0; i < codec::kEncodings; ++i) {
      const auto& use = stats.by_encoding[i];
      rows.push_back({{"name", codec::to_text(codec::Encoding(i))},
                      {"pages", use.pages},
                      {"bytes", use.raw},
                      {"encoded_bytes", use.plain}});
    }
    return rows;
  }

  Context& context_;
  const StreamFile& file_;
  json codings_ = json::array();
};

std::string gb_of(const json& row, const char* key) {
  return row.at(key).is_null() ? "-" : fmt::format("{:.2f} GB/s", row.at(key).get<double>());
}

void print(const json& bench, std::ostream& out) {
  out << fmt::format("{}: {}, a guest of {}, rounds ended: {}\n\n", text_of(bench, "file"),
                     bytes_of(bench, "bytes"), bytes_of(bench, "memory_bytes"),
                     text_of(bench, "rounds"));
  Table encodings({{"PAGES BECOME"},
                   {"PAGES", Align::right},
                   {"BYTES", Align::right},
                   {"ENCODED", Align::right}});
  for (const json& row : bench.at("encodings")) {
    encodings.row({text_of(row, "name"), text_of(row, "pages"), bytes_of(row, "bytes"),
                   bytes_of(row, "encoded_bytes")});
  }
  Table codings({{"CODING"},
                 {"LEFT", Align::right},
                 {"RATIO", Align::right},
                 {"ENCODES", Align::right},
                 {"DECODES", Align::right}});
  for (const json& row : bench.at("codings")) {
    codings.row({text_of(row, "name"), bytes_of(row, "encoded_bytes"),
                 fmt::format("{:.2f}", row.at("ratio").get<double>()),
                 gb_of(row, "encode_gb_per_s"), gb_of(row, "decode_gb_per_s")});
  }
  out << encodings.text("") << '\n'
      << codings.text("")
      << "\nGB of the stream in a second of one core. All that was decoded is the stream, bit for "
         "bit.\n";
}

void bench(Context& context, const BenchOptions& options) {
  codec::Settings settings;
  if (!options.cache.empty()) settings.cache = parse_byte_count(options.cache).value().bytes;
  settings.windows = options.windows;
  const StreamFile file = checked(StreamFile::open(options.file));
  const json result = Bench(context, file).run(options, settings);
  if (context.as_json) return context.print_json(result);
  print(result, context.io.out);
}

void add_bench(CLI::App& noun, Context& context) {
  auto* verb = noun.add_subcommand(
      "bench", "Show what Godwit's encodings and zstd make of a recorded stream; asks no agent");
  auto options = std::make_shared<BenchOptions>();
  verb->add_option("FILE", options->file, "A recorded stream")->required()->type_name("FILE");
  verb->add_option("--level", options->levels, "Of zstd, after the pages; repeat for more")
      ->check(CLI::Range(1, kBoundLevel))
      ->allow_extra_args(false)
      ->capture_default_str();
  add_size(*verb, "--cache", options->cache, "Memory for pages at each end (default 64MiB)");
  verb->add_option("--windows", options->windows,
                   "Of zstd, which take turns, as threads of a move do")
      ->check(CLI::Range(1, codec::kMaxWindows))
      ->capture_default_str();
  verb->add_flag("--bound", options->bound,
                 "Also the least to hope for: each page once, zstd -19 (minutes)");
  add_json(*verb, context);
  verb->callback([&context, options] { bench(context, *options); });
}

void record(Context& context, RecordOptions options, const std::string& time) {
  if (!time.empty()) {
    options.time = parse_duration(time).value();
    options.rounds = 0;
  }
  context.io.err << fmt::format(
                        "warning: {} will hold the memory of vm {} with all secrets that are in "
                        "it; whoever reads it knows them\n",
                        options.file, options.vm)
                 << std::flush;
  const json made = record_stream(context, options);
  if (context.as_json) return context.print_json(made);
  context.say(fmt::format("vm {}: {} in {}, rounds: {}", options.vm, bytes_of(made, "bytes"),
                          options.file, text_of(made, "rounds")));
  if (number_of(made, "paused_ms") > 0) {
    context.io.err << fmt::format(
        "QEMU had nothing left to send and paused the guest for {}: that ended it\n",
        ms_of(made, "paused_ms"));
  }
}

void add_record(CLI::App& noun, Context& context) {
  auto* verb = noun.add_subcommand(
      "record",
      "Write the migration stream of a running vm, which stays, into a new file (as root). The "
      "file holds the guest's memory, with all secrets in it");
  auto options = std::make_shared<RecordOptions>();
  auto time = std::make_shared<std::string>();
  options->rounds = kDefaultRounds;
  add_name(*verb, "VM", options->vm, "Its name")->required();
  verb->add_option("FILE", options->file, "The file, mode 0600; it must not exist")
      ->required()
      ->type_name("FILE");
  auto* rounds =
      verb->add_option("--rounds", options->rounds, "Times that QEMU goes through memory")
          ->check(CLI::Range(1, kMostRounds))
          ->capture_default_str();
  add_duration(*verb, "--for", *time, "So long instead")->excludes(rounds);
  add_json(*verb, context);
  verb->callback([&context, options, time] { record(context, *options, *time); });
}

}  // namespace

void add_debug(CLI::App& app, Context& context) {
  auto* noun = app.add_subcommand("debug", "For work on Godwit itself")->require_subcommand(1);
  auto* stream =
      noun->add_subcommand("stream", "Recorded migration streams of QEMU")->require_subcommand(1);
  add_record(*stream, context);
  add_bench(*stream, context);
}

}  // namespace godwit::cli

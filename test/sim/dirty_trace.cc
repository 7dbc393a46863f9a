#include "dirty_trace.hh"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <sstream>

namespace godwit::sim {
namespace {

Result<double> parse_count(const std::string& text) {
  std::istringstream words(text);
  double value = 0;
  if (!(words >> value) || !words.eof() || value < 0) return fail("'{}' is no count", text);
  return value;
}

// One line of a trace, without its comment.
class Line final {
 public:
  Line(DirtyTrace& trace, const std::string& text) : trace_(trace), words_(text) {}

  Result<> parse() {
    const std::string keyword = word();
    if (keyword.empty()) return {};
    if (keyword == "memory") return into(trace_.memory_pages);
    if (keyword == "group") return group();
    if (keyword == "at") return phase();
    if (keyword == "repeat") return into(trace_.repeat);
    return fail("'{}' is none of memory, group, at, repeat", keyword);
  }

 private:
  std::string word() {
    std::string text;
    words_ >> text;
    return text;
  }
  Result<> into(double& count) {
    const auto value = parse_count(word());
    if (!value) return std::unexpected(value.error());
    count = *value;
    return {};
  }
  Result<> into(Nanoseconds& time) {
    const auto value = parse_duration(word());
    if (!value) return std::unexpected(value.error());
    time = *value;
    return {};
  }
  Result<> group() {
    DirtyTrace::Group& added = trace_.groups.emplace_back(word());
    return into(added.pages);
  }
  Result<> phase() {
    DirtyTrace::Phase& added = trace_.phases.emplace_back();
    added.writes_per_second.resize(trace_.groups.size());
    if (auto at = into(added.at); !at) return at;
    for (std::string name = word(); !name.empty(); name = word()) {
      const auto found = std::ranges::find(trace_.groups, name, &DirtyTrace::Group::name);
      if (found == trace_.groups.end()) return fail("there is no group '{}' yet", name);
      const auto index = static_cast<std::size_t>(found - trace_.groups.begin());
      if (auto rate = into(added.writes_per_second[index]); !rate) return rate;
    }
    return {};
  }

  DirtyTrace& trace_;
  std::istringstream words_;
};

Result<> check(const DirtyTrace& trace) {
  double pages = 0;
  for (const auto& group : trace.groups) {
    if (group.pages < 1) return fail("group '{}' has no pages", group.name);
    pages += group.pages;
  }
  if (pages > trace.memory_pages) return fail("its groups have more pages than its memory");
  const auto by_time = [](const auto& a, const auto& b) { return a.at < b.at; };
  if (trace.phases.empty() || trace.phases.front().at != Nanoseconds(0) ||
      !std::ranges::is_sorted(trace.phases, by_time)) {
    return fail("its phases ('at') do not begin at 0ms and go on in order");
  }
  for (const auto& phase : trace.phases) {
    if (phase.writes_per_second.size() != trace.groups.size()) {
      return fail("its groups stand before its phases");
    }
  }
  return {};
}

}  // namespace

const DirtyTrace::Phase& DirtyTrace::phase_at(Nanoseconds time) const {
  if (repeat > Nanoseconds(0)) time %= repeat;
  const auto after = std::ranges::upper_bound(phases, time, {}, &Phase::at);
  return *std::prev(after);
}

Result<DirtyTrace> parse_dirty_trace(std::string name, std::string_view text) {
  DirtyTrace trace;
  trace.name = std::move(name);
  std::istringstream lines{std::string(text)};
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    const auto parsed = Line(trace, line.substr(0, line.find('#'))).parse();
    if (!parsed) return fail("trace {}, line {}: {}", trace.name, number, parsed.error().text);
  }
  const auto checked = check(trace);
  if (!checked) return fail("trace {}: {}", trace.name, checked.error().text);
  return trace;
}

Result<DirtyTrace> read_dirty_trace(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail("cannot read the trace {}", path);
  std::ostringstream text;
  text << file.rdbuf();
  return parse_dirty_trace(std::filesystem::path(path).stem().string(), text.str());
}

void DirtyLog::run(Nanoseconds duration) {
  const auto& phase = trace_.phase_at(now_);
  const double passed = static_cast<double>(duration.count()) / 1e9;
  for (std::size_t i = 0; i < dirty_.size(); ++i) {
    const double pages = trace_.groups[i].pages;
    const double clean = std::exp(-phase.writes_per_second[i] * passed / pages);
    dirty_[i] = pages - (pages - dirty_[i]) * clean;
  }
  now_ += duration;
}

double DirtyLog::pages() const { return std::accumulate(dirty_.begin(), dirty_.end(), 0.0); }

double DirtyLog::sync() {
  const double found = pages();
  std::ranges::fill(dirty_, 0.0);
  return found;
}

}  // namespace godwit::sim

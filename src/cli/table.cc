#include "cli/table.hh"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/check.hh"
#include "base/units.hh"

namespace godwit::cli {
namespace {

std::string cell_text(std::string_view text, std::size_t width, Align align) {
  return align == Align::right ? fmt::format("{:>{}}", text, width)
                               : fmt::format("{:<{}}", text, width);
}

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

}  // namespace

void Table::row(std::vector<std::string> cells) {
  CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::text(std::string_view empty) const {
  if (rows_.empty()) return fmt::format("{}\n", empty);
  std::vector<std::size_t> widths;
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    std::size_t width = columns_[i].title.size();
    for (const auto& row : rows_) width = std::max(width, row[i].size());
    widths.push_back(width);
  }
  const auto line = [&](const auto& cell) {
    std::string out;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      if (i > 0) out += "  ";
      out += cell_text(cell(i), widths[i], columns_[i].align);
    }
    return without_trailing_blanks(std::move(out));
  };
  std::string out = line([&](std::size_t i) { return columns_[i].title; });
  for (const auto& row : rows_)
    out += line([&](std::size_t i) -> std::string_view { return row[i]; });
  return out;
}

std::string pairs(const std::vector<std::pair<std::string, std::string>>& lines) {
  std::size_t width = 0;
  for (const auto& [name, value] : lines) width = std::max(width, name.size());
  std::string out;
  for (const auto& [name, value] : lines) {
    out += without_trailing_blanks(cell_text(name, width + 2, Align::left) + value);
  }
  return out;
}

std::string text_of(const nlohmann::json& object, std::string_view key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "-";
  if (!found->is_string()) return found->dump();
  const std::string text = found->get<std::string>();
  return text.empty() ? "-" : text;
}

double number_of(const nlohmann::json& object, std::string_view key) {
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found != object.end() && found->is_number() ? found->get<double>() : 0.0;
}

std::string bytes_of(const nlohmann::json& object, std::string_view key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return text_of(object, key);
  return to_text(ByteCount{found->get<std::uint64_t>()});
}

std::string ms_of(const nlohmann::json& object, std::string_view key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number()) return "-";
  return fmt::format("{:.1f} ms", found->get<double>());
}

}  // namespace godwit::cli

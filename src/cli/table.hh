#pragma once
// Tables and lists for people: columns as wide as their widest cell, two blanks between them.
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::cli {

enum class Align { left, right };

struct Column {
  std::string_view title;
  Align align = Align::left;
};

class Table final {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void row(std::vector<std::string> cells);  // CHECKs the number of cells
  // `empty` (a whole line) instead of a lonely header.
  std::string text(std::string_view empty) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "name     web\nmemory   512 MiB\n": one pair a line, values aligned.
std::string pairs(const std::vector<std::pair<std::string, std::string>>& lines);

// Fields of the agent's JSON as cells; "-" for what is missing, null or empty.
std::string text_of(const nlohmann::json& object, std::string_view key);
std::string bytes_of(const nlohmann::json& object, std::string_view key);  // 536870912 -> 512 MiB
std::string ms_of(const nlohmann::json& object, std::string_view key);     // 40.13 -> 40.1 ms
// 0 when missing.
double number_of(const nlohmann::json& object, std::string_view key);

}  // namespace godwit::cli

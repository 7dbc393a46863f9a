#pragma once
// Prometheus' text format (version 0.0.4), written line by line.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace godwit::agent {

class Exposition final {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;

  // Begins a family; its samples follow. `type` is counter, gauge or histogram.
  void family(std::string_view name, std::string_view type, std::string_view help);
  void sample(double value, const Labels& labels = {}, std::string_view suffix = {});
  // A family with one sample.
  void counter(std::string_view name, std::string_view help, double value);
  void gauge(std::string_view name, std::string_view help, double value);

  const std::string& text() const { return text_; }

 private:
  std::string family_;
  std::string text_;
};

}  // namespace godwit::agent

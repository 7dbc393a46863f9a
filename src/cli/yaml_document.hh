#pragma once
// A YAML file as JSON, with the line of each of its parts: what is wrong with it is told with them.
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/problem.hh"
#include "base/result.hh"
#include "cli/context.hh"

namespace godwit::cli {

struct YamlDocument {
  std::string file;
  nlohmann::json value;
  std::map<std::string, int> lines;  // from 1, by JSON pointer (RFC 6901)

  // Of the part, or of what it would be in.
  int line(const std::string& pointer) const;
  // "shop.yaml:12"
  std::string place(const std::string& pointer) const;
};

// Plain scalars become numbers, true, false and null where they look like it (YAML 1.2's core
// schema, decimal); quoted ones and all keys are texts.
Result<YamlDocument> read_yaml(const std::string& file);

// What is wrong with the file, line by line; not more of it than a person reads.
Failure failure_of(ExitStatus status, const YamlDocument& document,
                   const std::vector<Problem>& problems);

}  // namespace godwit::cli

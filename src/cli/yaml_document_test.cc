// YAML as JSON: which scalars are what, where each part is, and what is refused.
#include "cli/yaml_document.hh"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/test_directory.hh"

namespace godwit::cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class Yaml : public testing::Test {
 protected:
  Result<YamlDocument> read(const std::string& text) {
    std::ofstream(file_) << text;
    return read_yaml(file_);
  }
  json value(const std::string& text) { return read(text).value().value; }
  std::string refusal(const std::string& text) {
    const auto document = read(text);
    return document ? "" : document.error().text;
  }

  const TestDirectory directory_;
  const std::string file_ = (directory_ / "shop.yaml").string();
};

TEST_F(Yaml, ScalarsAreWhatTheyLookLike) {
  EXPECT_EQ(value("[1, -7, 1.5, true, false, null, ~, a, \"1\", 'true', 007, 52:54:00:00:00:01, "
                  "10.9.0.1, 1e3]"),
            json({1, -7, 1.5, true, false, nullptr, nullptr, "a", "1", "true", "007",
                  "52:54:00:00:00:01", "10.9.0.1", 1000.0}));
  EXPECT_EQ(value("1: {yes: no}\nempty:\n"), json({{"1", {{"yes", "no"}}}, {"empty", nullptr}}));
  EXPECT_EQ(value("a: &x {b: 1}\nc: *x\n"), json({{"a", {{"b", 1}}}, {"c", {{"b", 1}}}}));
}

TEST_F(Yaml, EveryPartHasItsLine) {
  const auto document = read("a:\n  - b\n  - c/d:\n      e: 1\n").value();
  EXPECT_EQ(document.place("/a/0"), file_ + ":2");
  EXPECT_EQ(document.place("/a/1/c~1d/e"), file_ + ":4");
  EXPECT_EQ(document.place("/a/1/c~1d/no/such"), file_ + ":3");
  EXPECT_EQ(document.place("/else"), file_ + ":1");
}

TEST_F(Yaml, WhatCannotBeReadSaysWhere) {
  EXPECT_THAT(refusal("a: 1\nb: [1, 2\n"), HasSubstr("shop.yaml:3: "));
  EXPECT_THAT(refusal("a: 1\nb: 2\na: 3\n"), HasSubstr("shop.yaml:3: 'a' is here twice"));
  EXPECT_THAT(refusal("[a]: 1\n"), HasSubstr("a key is a text"));
  EXPECT_THAT(read_yaml("/nowhere").error().text, HasSubstr("cannot read /nowhere"));
  // Ten times ten times ten...
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 8; ++i) {
    laughs += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n",
                          i, i - 1);
  }
  EXPECT_THAT(refusal(laughs), HasSubstr("the file says too much"));
}

}  // namespace
}  // namespace godwit::cli

// godwit export --format svg: what Graphviz makes of a network, read as whoever looks at it does.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <pugixml.hpp>
#include <set>

#include "cli/fake_agent.hh"

namespace godwit::cli {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;
using testing::UnorderedElementsAre;

constexpr const char *kGreen = "#2e7d32", *kOrange = "#ef6c00";

json wire(const char* a, const char* b, const char* state) {
  const auto end = [](const std::string& text) {
    const std::size_t slash = text.find('/');
    return json{{"host", text.substr(0, slash)}, {"port", text.substr(slash + 1)}};
  };
  return {
      {"id", std::string(a) + b}, {"a", end(a)}, {"b", end(b)}, {"state", state}, {"rtt_ms", 40.0}};
}

json port(const char* name, const char* component, const char* vm) {
  return {{"name", name}, {"component", component}, {"vm", vm}, {"kind", "nic"}};
}

// A host that answers and one that does not.
json hosts() {
  return {{{"name", "e1"}, {"site", "east"}, {"state", "self"}},
          {{"name", "w1"}, {"site", "west"}, {"state", "down"}}};
}

// The answers of e1, of which the wire to w1 is in that state.
json network(const char* state) {
  const json components = {{{"name", "sw1"}, {"type", "switch"}},
                           {{"name", "r1"}, {"type", "router <of> \"all\" & more"}}};
  const json ports = {port("sw1-web", "sw1", ""), port("sw1-r", "sw1", ""), port("r1-a", "r1", ""),
                      port("r1-wan", "r1", ""), port("web0", "", "web")};
  const json vms = {{{"name", "web"}, {"state", "running"}}};
  const json wires = {wire("e1/sw1-web", "e1/web0", "local"), wire("e1/sw1-r", "e1/r1-a", "local"),
                      wire("e1/r1-wan", "w1/lan0", state)};
  json answers = json::array();
  for (const json& body : {components, ports, vms, wires}) {
    answers.push_back({{"status", 200}, {"body", body}});
  }
  return answers;
}

struct Line {
  std::string color;
  bool is_dashed = false;
  std::set<std::string> words{};
};

// What is in a picture; a test fails if it is no XML.
struct Picture {
  explicit Picture(const std::string& svg) {
    pugi::xml_document document;
    const auto parsed = document.load_string(svg.c_str());
    EXPECT_TRUE(parsed) << parsed.description() << " at " << parsed.offset << "\n" << svg;
    EXPECT_STREQ(document.document_element().name(), "svg");
    for (const auto& found : document.select_nodes("//text")) {
      words.insert(found.node().child_value());
    }
    for (const auto& found : document.select_nodes("//g[@class='edge']")) {
      Line& line = lines[found.node().child_value("title")];
      const pugi::xml_node path = found.node().child("path");
      line.color = path.attribute("stroke").value();
      line.is_dashed = !path.attribute("stroke-dasharray").empty();
      for (const auto& text : found.node().select_nodes(".//text")) {
        line.words.insert(text.node().child_value());
      }
    }
  }
  std::set<std::string> words;
  std::map<std::string, Line> lines;  // by the two that it joins
};

class ExportTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(std::system("command -v dot >/dev/null"), 0)
        << "Graphviz is not installed: ./dev setup";
    agent_.answer("GET /v1/hosts", hosts());
    for (const char* state : {"up", "connecting"}) agent_.answer("POST /v1/batch", network(state));
    agent_.start();
  }
  Picture drawn() {
    const Ran ran = run_cli(agent_.socket(), {"export", "--format", "svg"});
    EXPECT_EQ(ran.status, 0) << ran.err;
    return Picture(ran.out);
  }

  FakeAgent agent_;
};

TEST_F(ExportTest, APictureHasEveryHostComponentAndWire) {
  const Picture picture = drawn();
  EXPECT_THAT(picture.words,
              IsSupersetOf({"site east", "site west", "host e1", "host w1: does not answer", "sw1",
                            "switch", "r1", "router <of> \"all\" & more", "web", "vm, running",
                            "w1/lan0"}));
  std::set<std::string> joined;
  for (const auto& [ends, line] : picture.lines) joined.insert(ends);
  EXPECT_THAT(joined, UnorderedElementsAre("component e1/sw1--vm e1/web",
                                           "component e1/sw1--component e1/r1",
                                           "component e1/r1--port w1/lan0"));
  EXPECT_THAT(picture.lines.at("component e1/sw1--component e1/r1").words, IsSupersetOf({"r", "a"}))
      << "by which ports";
}

// The same network, asked twice: nothing that is drawn is kept.
TEST_F(ExportTest, AWireThatGoesDownIsSeen) {
  const char* const wire = "component e1/r1--port w1/lan0";
  const Line before = drawn().lines.at(wire);
  EXPECT_EQ(before.color, kGreen);
  EXPECT_FALSE(before.is_dashed);
  EXPECT_THAT(before.words, Contains("40.0 ms"));
  const Picture after = drawn();
  EXPECT_EQ(after.lines.at(wire).color, kOrange);
  EXPECT_TRUE(after.lines.at(wire).is_dashed);
  EXPECT_THAT(after.lines.at(wire).words, Contains(HasSubstr("connecting")));
  for (const auto& [ends, line] : after.lines) {
    if (ends != wire) EXPECT_EQ(line.color, kGreen) << ends;
  }
}

TEST_F(ExportTest, WithoutGraphvizTheErrorNamesIt) {
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", "/nonexistent", 1);
  const Ran ran = run_cli(agent_.socket(), {"export", "--format", "svg"});
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("install graphviz"));
  EXPECT_THAT(ran.out, Not(HasSubstr("svg")));
}

}  // namespace
}  // namespace godwit::cli

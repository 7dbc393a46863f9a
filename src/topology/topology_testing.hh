#pragma once
// Hosts of a fleet for tests: they do what steps ask them, as agents do.
#include <map>
#include <string>

#include "topology/plan.hh"

namespace godwit::topology {

class ModelFleet final {
 public:
  // e1 and e2 at east, w1 at west.
  ModelFleet();
  // False: refused, as an agent would.
  bool apply(const Step& step);
  // One after the other; how many were refused.
  int apply(const std::vector<Step>& steps, bool prune);

  Actual actual;

 private:
  bool add_port(const std::string& host, nlohmann::json body, const std::string& component);
  bool add_component(const std::string& host, nlohmann::json body);
  bool change_component(const std::string& host, const std::string& name,
                        const nlohmann::json& body);
  bool run_vm(const std::string& host, const nlohmann::json& body);
  bool connect(const nlohmann::json& body);
  bool remove(const std::string& host, const std::string& collection, const std::string& name);
  Thing* find(std::vector<Thing>& things, const std::string& host, const std::string& name);
  Wire* wire_at(const PortPlace& port);
};

}  // namespace godwit::topology

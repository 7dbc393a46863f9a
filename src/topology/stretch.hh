#pragma once
// One switch at several hosts: instances of one name, each joined to all others by wires between
// stretched ports, called to-HOST. A host is added or taken away while frames pass: nothing of the
// others is touched but the ports and wires to it.
#include "base/result.hh"
#include "topology/plan.hh"

namespace godwit::topology {

// The hosts of the instances to which the switch at `host` belongs, `host` first; by their wires.
std::vector<std::string> stretched_over(const Actual& actual, const std::string& host,
                                        const std::string& name);

// To a host or a site. Harmless where it is already.
Result<std::vector<Step>> stretch(const Actual& actual, const std::string& host,
                                  const std::string& name, const std::string& to);
// From a host where it has no wires but those to the others. Harmless where it is not.
Result<std::vector<Step>> unstretch(const Actual& actual, const std::string& host,
                                    const std::string& name, const std::string& from);

}  // namespace godwit::topology

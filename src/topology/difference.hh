#pragma once
// Where what is differs from what is wanted, by the names of settings: a new type of component
// needs nothing here.
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "topology/model.hh"

namespace godwit::topology {

// Whether `is` has all that is wanted: objects their members and perhaps more, lists item by item.
// A false flag, an empty text or list, and zero are also said by saying nothing.
bool covers(const nlohmann::json& wanted, const nlohmann::json& is);
// Whether they say the same.
bool same(const nlohmann::json& a, const nlohmann::json& b);

// Which members of `is` are not as they are said, or not as `whole` has them, which has what is
// said, too. A host that does not show one does not know it: it is not told of it.
std::set<std::string> differing(const nlohmann::json& said, const nlohmann::json& whole,
                                const nlohmann::json& is);

struct Difference {
  nlohmann::json settings = nlohmann::json::object();  // that the host is to be told
  std::vector<std::string> members{};                  // "ageing_s", "access of web", for people
};
// Of a component; nothing if it is as wanted. All of it counts where it was made for the file, or
// its ports by these names were; elsewhere what is said.
std::optional<Difference> difference(const WantedThing& wanted, const nlohmann::json& is,
                                     bool is_made, const std::set<std::string>& made_ports);

}  // namespace godwit::topology

#pragma once
// Where the user is not root: the lab lives in a user namespace of its own (user_namespaces(7)), in
// which the user is root.

namespace godwit::lab {

// Moves this process, which has one thread, into new mount and network namespaces, and before that,
// unless it is root, into a new user namespace. Throws SetupError with the remedy where the system
// forbids that.
void leave_the_machine();

}  // namespace godwit::lab

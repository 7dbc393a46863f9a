#pragma once
// Random bytes from the kernel (getrandom(2)); only the edge calls this.
#include "base/bytes.hh"
#include "base/id.hh"

namespace godwit::os {

void fill_random(MutableBytes out);

template <class AnId>
AnId random_id() {
  AnId id;
  fill_random(id.bytes);
  return id;
}

}  // namespace godwit::os

#include "doctor/examine.hh"

#include "base/result.hh"

namespace godwit::doctor {

Findings examine(const Options& options) {
  Findings all;
  for (auto part :
       {examine_kernel(), examine_machine(), examine_files(options), examine_network(options)}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

}  // namespace godwit::doctor

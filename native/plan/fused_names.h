// The steps a fused program may hold, for whoever writes programs: the code of a step is its position here.
#pragma once
#include <string>
#include <vector>

namespace keydnn::plan {

struct FusedName {
  std::string name;
  int operands;
  double cost;  // nanoseconds per element
};

std::vector<FusedName> fused_names();

}  // namespace keydnn::plan

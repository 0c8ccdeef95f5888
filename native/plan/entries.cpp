// Looks up entries by name.
#include "entries.h"

namespace keydnn::plan {

Entry find(const std::string& name) {
  static const Table table = [] {
    Table made;
    add_elementwise(made);
    add_movement(made);
    add_linalg(made);
    add_conv(made);
    add_recurrent(made);
    add_index(made);
    add_reduce(made);
    add_softmax(made);
    add_norm(made);
    add_update(made);
    return made;
  }();
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace keydnn::plan

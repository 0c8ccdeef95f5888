// The plan kernel table: entry name to function.  One entries_<family>.cpp per family registers its rows.
//
// An entry is a template over float and double; `add` enters both, as "name:f32" and "name:f64".  What an entry expects
// in places, integers and reals stands at its definition; src/keydnn/compiler/lower*.py writes them.
#pragma once
#include <string>
#include <unordered_map>

#include "keydnn.h"
#include "plan.h"

namespace keydnn::plan {

using Table = std::unordered_map<std::string, Entry>;

template <class T>
T* at(const Call& call, int i) {
  return static_cast<T*>(call.p[i]);
}

inline void add(Table& table, const std::string& name, Entry f32, Entry f64) {
  table[name + ":f32"] = f32;
  table[name + ":f64"] = f64;
}

#define KEYDNN_ENTER(table, name) ::keydnn::plan::add(table, #name, &name<float>, &name<double>)

void add_elementwise(Table& table);
void add_movement(Table& table);
void add_linalg(Table& table);
void add_conv(Table& table);
void add_recurrent(Table& table);
void add_index(Table& table);
void add_reduce(Table& table);
void add_softmax(Table& table);
void add_norm(Table& table);
void add_update(Table& table);

}  // namespace keydnn::plan

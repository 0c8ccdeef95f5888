// Plans for Python: built from lists, run over ndarrays.
#include "../plan/plan.h"

#include <nanobind/stl/string.h>

#include "../plan/fused_names.h"
#include "array.h"

namespace keydnn {
namespace {

using plan::Plan;

plan::Buffer as_buffer(nb::handle entry) {
  const nb::tuple t = nb::cast<nb::tuple>(entry);
  const std::string kind = nb::cast<std::string>(t[0]);
  plan::Buffer buffer{plan::Kind::arena, nb::cast<int64_t>(t[1])};
  if (kind == "outer") buffer.kind = plan::Kind::outer;
  else if (kind == "input") buffer.kind = plan::Kind::input;
  else if (kind == "output") buffer.kind = plan::Kind::output;
  else if (kind == "keys") buffer.kind = plan::Kind::keys;
  else if (kind != "arena") throw nb::value_error("plan: unknown kind of buffer");
  return buffer;
}

plan::Place as_place(nb::handle entry) {
  const nb::tuple t = nb::cast<nb::tuple>(entry);
  return {nb::cast<int32_t>(t[0]), nb::cast<int64_t>(t[1])};
}

plan::Op as_op(nb::handle entry) {
  const nb::tuple t = nb::cast<nb::tuple>(entry);
  const std::string name = nb::cast<std::string>(t[0]);
  plan::Op op;
  op.entry = plan::find(name);
  if (!op.entry) throw nb::value_error(("plan: no kernel named " + name).c_str());
  for (nb::handle place : t[1]) op.places.push_back(as_place(place));
  for (nb::handle n : t[2]) op.n.push_back(nb::cast<int64_t>(n));
  for (nb::handle f : t[3]) op.f.push_back(nb::cast<double>(f));
  return op;
}

void make_plan(Plan* self, nb::list buffers, nb::list ops, nb::list inputs, nb::list outputs, int64_t arena_bytes, int64_t n_keys) {
  std::vector<plan::Buffer> b;
  std::vector<plan::Op> o;
  std::vector<plan::Staging> in;
  std::vector<plan::Output> out;
  for (nb::handle entry : buffers) b.push_back(as_buffer(entry));
  for (nb::handle entry : ops) o.push_back(as_op(entry));
  for (nb::handle entry : inputs) {
    const nb::tuple t = nb::cast<nb::tuple>(entry);
    in.push_back({nb::cast<int64_t>(t[0]), nb::cast<int64_t>(t[1])});
  }
  for (nb::handle entry : outputs) {
    const nb::tuple t = nb::cast<nb::tuple>(entry);
    out.push_back({{nb::cast<int32_t>(t[0]), nb::cast<int64_t>(t[1])}, nb::cast<int64_t>(t[2])});
  }
  new (self) Plan(std::move(b), std::move(o), std::move(in), std::move(out), arena_bytes, n_keys);
}

char* memory_of(nb::handle h, const char* what) {
  if (!PyArray_Check(h.ptr())) throw nb::type_error(what);
  PyArrayObject* array = reinterpret_cast<PyArrayObject*>(h.ptr());
  if (!PyArray_IS_C_CONTIGUOUS(array)) throw nb::value_error(what);
  return static_cast<char*>(PyArray_DATA(array));
}

// Runs up to `steps` steps and returns how many were done; fewer when the budget ran out.
int64_t run_steps(Plan& self, nb::list inputs, nb::list outputs, nb::handle keys, int64_t steps, nb::handle index, int64_t batch,
            int64_t budget_ns) {
  if (static_cast<int64_t>(inputs.size()) != self.n_inputs() || static_cast<int64_t>(outputs.size()) != self.n_outputs())
    throw nb::value_error("plan: wrong number of inputs or outputs");
  plan::Request request;
  request.steps = steps;
  request.batch = batch;
  request.budget_ns = budget_ns;
  for (nb::handle h : inputs) request.sources.push_back(memory_of(h, "plan: inputs must be contiguous arrays"));
  for (nb::handle h : outputs) {
    const bool wanted = !h.is_none();
    if (!wanted && self.is_direct(static_cast<int64_t>(request.outputs.size()))) throw nb::value_error("plan: this output cannot be left out");
    request.outputs.push_back(wanted ? memory_of(h, "plan: outputs must be contiguous arrays") : nullptr);
  }
  if (!keys.is_none()) request.keys = reinterpret_cast<int64_t*>(memory_of(keys, "plan: keys must be a contiguous array"));
  if (self.n_keys() && !request.keys) throw nb::value_error("plan: keys are missing");
  if (!index.is_none()) request.index = reinterpret_cast<int64_t*>(memory_of(index, "plan: index must be a contiguous array"));
  int64_t done = 0;
  int status;
  {
    nb::gil_scoped_release released;
    status = self.run(request, &done);
  }
  if (status == KEYDNN_NO_MEMORY) throw std::bad_alloc();
  if (status == plan::kBadLabel) throw nb::value_error("a class label lies outside the range of the classes");
  if (status == KEYDNN_BAD_INDEX) throw nb::index_error("an index lies outside its axis");
  if (status != KEYDNN_OK) {
    const std::string text = "plan: op " + std::to_string(self.failed_op()) + " failed with status " + std::to_string(status);
    throw nb::value_error(text.c_str());
  }
  return done;
}

void read_place(const Plan& self, nb::handle place, nb::handle to) {
  PyArrayObject* array = reinterpret_cast<PyArrayObject*>(to.ptr());
  self.read(as_place(place), PyArray_NBYTES(array), memory_of(to, "plan: read needs a contiguous array"));
}

nb::list fused_codes() {
  nb::list names;
  for (const plan::FusedName& row : plan::fused_names()) names.append(nb::make_tuple(row.name, row.operands, row.cost));
  return names;
}

}  // namespace

void bind_plan(nb::module_& m) {
  using namespace nb::literals;
  nb::class_<Plan>(m, "Plan", "Kernel calls over numbered buffers; see native/plan/plan.h.")
      .def("__init__", &make_plan, "buffers"_a, "ops"_a, "inputs"_a, "outputs"_a, "arena_bytes"_a, "n_keys"_a)
      .def("run", &run_steps, "inputs"_a, "outputs"_a, "keys"_a.none(), "steps"_a = 1, "index"_a.none() = nb::none(), "batch"_a = 0,
           "budget_ns"_a = 0)
      .def("read", &read_place, "place"_a, "to"_a)
      .def("discard", &Plan::discard)
      .def("profile", &Plan::profile, "on"_a)
      .def("op_ns", [](const Plan& self) {
        nb::list times;
        for (const int64_t ns : self.op_ns()) times.append(ns);
        return times;
      })
      .def_prop_ro("arena_bytes", &Plan::arena_bytes);
  m.def("plan_has", [](const std::string& name) { return plan::find(name) != nullptr; }, "name"_a);
  m.def("fused_codes", &fused_codes);
}

}  // namespace keydnn

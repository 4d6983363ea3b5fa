// Giving data to the named constants of a graph.
#pragma once

#include "ir/graph.h"

#include <functional>

namespace lathe::core {

// A tensor of a weights file, with or without data.
bool is_named(const Constant &constant);
// Named, but without data yet.
bool unbound(const Constant &constant);

// Calls `visit` once for every constant below `root`, itself included.
void for_each_part(const ConstantRef &root, const std::function<void(const Constant &)> &visit);
// Calls `visit` once for every unbound constant below `root`, itself included.
void for_each_unbound(const ConstantRef &root, const std::function<void(const Constant &)> &visit);

// `root` with the tensors, of the same types, that `data_of` gives for its named constants; those
// for which it gives an undefined one stay.
ConstantRef with_data(const ConstantRef &root,
                      const std::function<Tensor(const Constant &)> &data_of);

} // namespace lathe::core

// Parts of the evaluator that its files share.
#pragma once

#include "ir/ops.h"

namespace lathe {

double apply(const Unary &op, double x);
double apply(BinaryKind kind, double a, double b);

Tensor evaluate_conv(const Conv &op, std::span<const Tensor> inputs, const Type &type);
Tensor evaluate_dense(const Dense &op, std::span<const Tensor> inputs, const Type &type);

} // namespace lathe

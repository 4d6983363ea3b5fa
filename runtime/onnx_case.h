// Test cases as ONNX's own backend tests keep them: model.onnx beside folders test_data_set_N with
// input_I.pb and output_J.pb.
#pragma once

#include "runtime/executable.h"

namespace lathe::core {

// Compiles a case's model for each of its data sets, runs it, and compares every output element by
// element: |found - expected| <= atol + rtol * |expected|, NaN equals NaN, other types exactly.
// Errors: mismatch, naming the output and element; invalid for a folder without data sets; else
// those of reading and compiling.
Result<void> verify_onnx_case(const std::string &folder, const CompileOptions &options,
                              double rtol = 1e-3, double atol = 1e-7);

} // namespace lathe::core

// Test cases as ONNX's own backend tests keep them: model.onnx beside folders test_data_set_N with
// input_I.pb and output_J.pb.
#pragma once

#include "runtime/executable.h"

namespace lathe::core {

// What a case's inputs are to the compiler. As constants, all of the model is computed while it is
// read.
enum class InputsOfCase : uint8_t { at_run_time, constants };

// Compiles a case's model for each of its data sets, runs it, and compares every output element by
// element: |found - expected| <= atol + rtol * |expected|, NaN equals NaN, other types exactly.
// Without `atol` (-1): 1e-7 of the largest value, and of 1 where that is less. Errors: mismatch,
// naming the output and element; invalid for a folder without data sets; else those of reading and
// compiling.
Result<void> verify_onnx_case(const std::string &folder, const CompileOptions &options,
                              double rtol = 1e-3, double atol = -1,
                              InputsOfCase inputs = InputsOfCase::at_run_time);

} // namespace lathe::core

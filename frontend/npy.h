// NumPy's .npy files, versions 1 to 3 of the format.
#pragma once

#include "frontend/elements.h"

#include <span>

namespace lathe::core {

// As `load_elements` gives the elements (f2, f4, f8, i1, u1, i2, u2, i4, i8, b1); Fortran order is
// transposed away. Errors: io; invalid for what is malformed, truncated
// or too long; unsupported for other element types: big endian, objects, records.
Result<Tensor> read_npy(const std::string &path);
// The same for bytes in memory that `owner` keeps alive; `path` names them in errors.
Result<Tensor> parse_npy(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                         const std::string &path);
Result<void> write_npy(const std::string &path, const Tensor &tensor);

} // namespace lathe::core

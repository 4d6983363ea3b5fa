// MNIST's idx files of unsigned bytes, plain or gzipped: the pictures and labels of MNIST and
// Fashion-MNIST.
#pragma once

#include "ir/tensor.h"

#include <span>

namespace lathe::core {

struct IdxArray {
  Shape shape; // pictures: count, rows, columns; labels: count
  std::vector<uint8_t> values;
};

// Errors: io; invalid; limit for more than 1 GiB.
Result<IdxArray> read_idx(const std::string &path);
// The same for bytes in memory; `path` names them in errors.
Result<IdxArray> parse_idx(std::span<const std::byte> bytes, const std::string &path);

} // namespace lathe::core

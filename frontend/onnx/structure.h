// A model's file without its weights. Private to frontend/onnx.
#pragma once

#include "frontend/onnx/proto.h"
#include "ir/error.h"

#include <memory>
#include <span>

namespace lathe::core::onnx {

// Where the bytes of a model are. Those of a mapped file may be cut off at any time
// (ir/system/mapping.h): what is parsed is then a copy that nobody changes, without the large raw
// data of initialisers, whose places are left empty.
struct ModelBytes {
  std::shared_ptr<const void> owner; // of all of it
  std::span<const std::byte> parsed;
  std::span<const std::byte> file; // as long, or empty where all of it is parsed

  // Raw data of a tensor, by its place in `parsed`.
  std::span<const std::byte> raw_data(Bytes view) const;
};

// `file` as it is, if it lies in memory of our own. Errors: io, limit.
Result<ModelBytes> read_structure(std::shared_ptr<const void> owner,
                                  std::span<const std::byte> file);

} // namespace lathe::core::onnx

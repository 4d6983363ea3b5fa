// Element types that files store, and their way into tensors.
#pragma once

#include "ir/tensor.h"

#include <optional>

namespace lathe::core {

enum class Stored : uint8_t { boolean, u8, i8, u16, i16, i32, i64, f16, bf16, f32, f64 };
size_t size_of(Stored stored);

// Little-endian elements at `data` as the nearest of our types: floats become f32, 8 and 16 bit
// integers i32, the others stay what they are. What needs no conversion and is aligned stays where
// it is and keeps `owner` alive. The caller has checked that the bytes are there and that the
// shape can be counted. Errors: as copy_bytes.
Result<Tensor> load_elements(Stored stored, Shape shape, std::shared_ptr<const void> owner,
                             const std::byte *data);

} // namespace lathe::core

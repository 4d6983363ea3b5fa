// TensorProto in files of their own.
#include "frontend/onnx.h"
#include "frontend/onnx/data.h"
#include "ir/system/output_file.h"

#include <protozero/pbf_writer.hpp>

namespace lathe::core {

Result<Tensor> read_tensor_proto(const std::string &path) {
  LATHE_TRY(auto file, MappedFile::read(path));
  return parse_tensor_proto(file->bytes(), file, path);
}

Result<Tensor> parse_tensor_proto(std::span<const std::byte> bytes,
                                  std::shared_ptr<const void> owner, const std::string &path) {
  auto read = [&]() -> Result<Tensor> {
    const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    LATHE_TRY(onnx::TensorProto proto, onnx::read_tensor(text));
    if (proto.external)
      return fail(ErrorCode::unsupported, "a tensor file that refers to another file");
    return onnx::TensorReader({std::move(owner), bytes, {}}, "").read(proto);
  };
  auto tensor = read();
  if (!tensor) tensor.error().file = path;
  return tensor;
}

Result<void> write_tensor_proto(const std::string &path, const std::string &name,
                                const Tensor &tensor) {
  const std::string bytes = onnx::encode(name, tensor);
  return write_file(path, {std::as_bytes(std::span(bytes))});
}

namespace onnx {

std::string encode(std::string_view name, const Tensor &tensor) {
  std::string bytes;
  protozero::pbf_writer message(bytes);
  message.add_packed_int64(1, tensor.shape().begin(), tensor.shape().end());
  message.add_int32(2, data_type(tensor.dtype()));
  message.add_string(8, name.data(), name.size());
  message.add_bytes(9, reinterpret_cast<const char *>(tensor.raw()), tensor.bytes());
  return bytes;
}

int32_t data_type(DType dtype) {
  switch (dtype) {
  case DType::f32:
    return FLOAT;
  case DType::i64:
    return INT64;
  case DType::i32:
    return INT32;
  case DType::boolean:
    return BOOL;
  case DType::f16:
    return FLOAT16;
  case DType::bf16:
    return BFLOAT16;
  case DType::f64:
    return DOUBLE;
  }
  return 0;
}

} // namespace onnx
} // namespace lathe::core

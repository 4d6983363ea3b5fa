// A program with an LLVM of its own, another version, in C++: it makes and prints modules before,
// between and after Lathe's compiling and running. Both have functions of the same names.
#include <lathe/lathe.h>

#include <llvm/Config/llvm-config.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/Module.h>
#include <llvm/IR/Verifier.h>
#include <llvm/Support/raw_ostream.h>

#include <cstdio>
#include <numeric>

static_assert(LLVM_VERSION_MAJOR == 14);

// int add(int, int), as text.
static bool own_llvm_works() {
  llvm::LLVMContext context;
  llvm::Module module("mine", context);
  llvm::Type *type = llvm::Type::getInt32Ty(context);
  auto *add = llvm::Function::Create(llvm::FunctionType::get(type, {type, type}, false),
                                     llvm::Function::ExternalLinkage, "add", module);
  llvm::IRBuilder<> builder(llvm::BasicBlock::Create(context, "entry", add));
  builder.CreateRet(builder.CreateAdd(add->getArg(0), add->getArg(1)));
  std::string text;
  llvm::raw_string_ostream stream(text);
  if (llvm::verifyModule(module, &stream)) return false;
  module.print(stream, nullptr);
  return stream.str().find("add i32 %0, %1") != std::string::npos;
}

int main() {
  if (!own_llvm_works()) return 1;
  const lathe::Model model = lathe::Model::load("lenet5").value();
  const lathe::Executable network = lathe::compile(model).value();
  if (!own_llvm_works()) return 2;
  lathe::Request request = network.request().value();
  request.run();
  const auto scores = request.output();
  const float sum = std::accumulate(scores.begin(), scores.end(), 0.f);
  if (sum < 0.999f || sum > 1.001f || !own_llvm_works()) return 3;
  std::puts("both work");
}

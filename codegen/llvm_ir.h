// LLVM's IR and its builder: silenced, and of the versions we know. With llvm.h the only place that
// includes LLVM.
#pragma once

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <llvm/Config/llvm-config.h>
#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/InlineAsm.h>
#include <llvm/IR/IntrinsicsAArch64.h>
#include <llvm/IR/IntrinsicsX86.h>
#include <llvm/IR/Module.h>
#pragma GCC diagnostic pop

#if LLVM_VERSION_MAJOR < 19 || LLVM_VERSION_MAJOR > 21
#error "Lathe is built and measured with LLVM 19 to 21"
#endif

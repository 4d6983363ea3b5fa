// Names of generated functions for Linux's perf. Private to code generation.
#pragma once

#include "codegen/llvm.h"

namespace lathe::core {

void add_perf_map(llvm::orc::ObjectLinkingLayer &layer);

} // namespace lathe::core

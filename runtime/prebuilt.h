// Code that was compiled when Lathe was built, so that networks of the usual layers start at once.
#pragma once

#include "codegen/archive.h"

namespace lathe::core {

// What the bundled networks need on the targets of this architecture, in several widths.
const CodeArchive &prebuilt_code();

} // namespace lathe::core

// The archive that prebuilt/main.cpp made is part of the program.
#include "runtime/prebuilt.h"

#include "frontend/embedded.h"
#include "ir/system/fork.h"

namespace lathe::core {

const CodeArchive &prebuilt_code() {
  return made_once<[] {
    return CodeArchive({prebuilt_files.front().begin, prebuilt_files.front().end});
  }>();
}

} // namespace lathe::core

// The archive that prebuilt/main.cpp made is part of the program.
#include "runtime/prebuilt.h"

#include "frontend/embedded.h"

namespace lathe::core {

const CodeArchive &prebuilt_code() {
  static const CodeArchive archive({prebuilt_files.front().begin, prebuilt_files.front().end});
  return archive;
}

} // namespace lathe::core

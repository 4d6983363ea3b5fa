// Reads the note NT_GNU_BUILD_ID from memory: elf(5), dl_iterate_phdr(3).
#include "runtime/build_id.h"

#include "ir/system/fork.h"

#include <cstring>
#include <elf.h>
#include <link.h>

namespace lathe::core {
namespace {

// The identifier among a segment's notes.
std::string find_note(const char *notes, size_t bytes) {
  const char *const end = notes + bytes;
  auto padded = [](size_t size) { return (size + 3) / 4 * 4; };
  while (size_t(end - notes) >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) note;
    std::memcpy(&note, notes, sizeof note);
    const char *const name = notes + sizeof note, *const content = name + padded(note.n_namesz);
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 && std::memcmp(name, "GNU", 4) == 0)
      return {content, note.n_descsz};
    notes = content + padded(note.n_descsz);
  }
  return {};
}

int search(dl_phdr_info *object, size_t, void *result) {
  const auto here = reinterpret_cast<uintptr_t>(&build_id);
  bool ours = false;
  std::string id;
  for (size_t i = 0; i < object->dlpi_phnum; ++i) {
    const auto &segment = object->dlpi_phdr[i];
    const uintptr_t begin = object->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD) ours |= here >= begin && here < begin + segment.p_memsz;
    if (segment.p_type == PT_NOTE && id.empty())
      id = find_note(reinterpret_cast<const char *>(begin), segment.p_memsz);
  }
  if (ours) *static_cast<std::string *>(result) = std::move(id);
  return ours;
}

} // namespace

const std::string &build_id() {
  return made_once<[] {
    std::string found;
    dl_iterate_phdr(search, &found);
    return found;
  }>();
}

} // namespace lathe::core

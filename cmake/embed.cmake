# Writes a C++ file that contains files byte by byte, by the assembler's .incbin, as a table NAME.
# Usage: cmake -DOUTPUT=... -DNAME=... "-DFILES=a;b" -P embed.cmake
set(assembly "")
set(table "")
set(declarations "")
set(index 0)
foreach(file ${FILES})
  get_filename_component(name ${file} NAME)
  string(APPEND assembly
    "    \".balign 64\\nlathe_file_${index}: .incbin \\\"${file}\\\"\\nlathe_file_${index}_end: .byte 0\\n\"\n")
  string(APPEND declarations
    "extern const std::byte begin_${index} asm(\"lathe_file_${index}\"), end_${index} asm(\"lathe_file_${index}_end\");\n")
  string(APPEND table "    {\"${name}\", &begin_${index}, &end_${index}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUTPUT}
"// Written by cmake/embed.cmake.
#include \"frontend/embedded.h\"

asm(\".pushsection .rodata\\n\"
${assembly}    \".popsection\\n\");

namespace lathe::core {
${declarations}
static const EmbeddedFile files[] = {
${table}};
const std::span<const EmbeddedFile> ${NAME}{files};
} // namespace lathe::core
")

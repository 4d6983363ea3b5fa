# Installs the built Lathe into a prefix, then builds strangers' projects against it and runs what
# comes out: the README's C++ program, the examples, a host with another LLVM.
set(prefix ${WORK}/prefix)
file(REMOVE_RECURSE ${prefix})
file(READ ${LATHE}/README.md readme)
string(REGEX MATCH "```cpp\n(.*)\n}\n```" block "${readme}")
if(NOT block)
  message(FATAL_ERROR "the README shows no C++ program")
endif()
file(WRITE ${WORK}/source/readme.cpp "${CMAKE_MATCH_1}\n}\n")
configure_file(${LATHE}/tests/consumer/CMakeLists.txt ${WORK}/source/CMakeLists.txt COPYONLY)

function(run expected)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${LATHE}/docs/examples RESULT_VARIABLE failed
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed OR NOT output MATCHES "${expected}")
    message(FATAL_ERROR "${ARGN}\n${output}\nexpected: ${expected}")
  endif()
endfunction()

function(build source folder)
  run("" ${CMAKE_COMMAND} -S ${source} -B ${folder} -G Ninja -DCMAKE_PREFIX_PATH=${prefix}
      -DLATHE=${LATHE} -DCMAKE_BUILD_TYPE=Release "-DCMAKE_C_FLAGS=-std=c11 -Wall -Werror -pedantic"
      "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
  run("" ${CMAKE_COMMAND} --build ${folder} -j 2)
endfunction()

run("" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${prefix})
# The shared library needs what the README says, and no more.
file(GLOB_RECURSE library ${prefix}/lib*/liblathe.so)
execute_process(COMMAND readelf -d ${library} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "NEEDED[^\n]*" needed "${dynamic}")
string(REGEX MATCH "It needs [^.]*\\.[^.]*\\." promised "${readme}")
foreach(entry ${needed})
  string(REGEX REPLACE ".*lib([a-z+]+)[-_.0-9a-z]*\\.so.*" "\\1" name "${entry}")
  if(name MATCHES "^(c|m|gcc|ld-linux.*)$" OR entry MATCHES "ld-linux")
    continue() # the C library and the compiler's
  endif()
  if(name STREQUAL "z")
    set(name zlib)
  endif()
  string(FIND "${promised}" ${name} at)
  if(at EQUAL -1)
    message(FATAL_ERROR "the shared library needs ${entry}, which the README does not name: ${promised}")
  endif()
endforeach()
build(${WORK}/source ${WORK}/build)
string(REPEAT "[01]\\.[0-9]+\n" 10 ten_scores)
run("${ten_scores}" ${WORK}/build/readme)
run("${ten_scores}" ${WORK}/build/readme_static)
run("both work" ${WORK}/build/host)

build(${LATHE}/docs/examples ${WORK}/examples)
run("class 9: 0\\.9.*class.*class" ${WORK}/examples/classify boot.png)
run("class 9: 0\\.9" ${WORK}/examples/classify_c boot.png lenet5
    ${LATHE}/models/lenet5.safetensors fashion-mnist)
run("000 questions answered" ${WORK}/examples/serve)
run("conv1" ${WORK}/examples/features lenet5)
run("values, the first" ${WORK}/examples/features lenet5 conv1)
run("0\\.9[0-9]+ +9\n" ${prefix}/bin/lathe run lenet5 -i boot.png)

# The program of docs/ahead-of-time.md.
file(READ ${LATHE}/docs/ahead-of-time.md page)
string(REGEX MATCH "```c\n([^`]*)```" block "${page}")
set(aot ${WORK}/ahead_of_time)
file(WRITE ${aot}/main.c "${CMAKE_MATCH_1}")
run("" ${prefix}/bin/lathe compile squeezenet1_1 -o ${aot}/squeezenet.o --name squeezenet)
run("" cc -std=c11 -Wall -Wextra -Werror -pedantic ${aot}/main.c ${aot}/squeezenet.o -o ${aot}/main)
run("done" ${aot}/main)

# Takes the C++ program out of the README, builds it against the source tree as a stranger's project
# would, and runs it. Flags as in our own build, so that the compiler cache serves both.
file(READ ${LATHE}/README.md readme)
string(REGEX MATCH "```cpp\n(.*)\n}\n```" block "${readme}")
if(NOT block)
  message(FATAL_ERROR "the README shows no C++ program")
endif()
file(WRITE ${BUILD}/source/classify.cpp "${CMAKE_MATCH_1}\n}\n")
configure_file(${LATHE}/tests/consumer/CMakeLists.txt ${BUILD}/source/CMakeLists.txt COPYONLY)

function(run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${LATHE}/models RESULT_VARIABLE failed
                  OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(failed)
    message(FATAL_ERROR "${ARGN}\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

run(${CMAKE_COMMAND} -S ${BUILD}/source -B ${BUILD}/build -G Ninja -DLATHE=${LATHE}
    -DLATHE_WERROR=${WERROR} -DCMAKE_BUILD_TYPE=Release)
run(${CMAKE_COMMAND} --build ${BUILD}/build --target classify -j 2)
run(${BUILD}/build/classify)
string(REGEX MATCHALL "[01]\\.[0-9]+" scores "${output}")
list(LENGTH scores count)
if(NOT count EQUAL 10)
  message(FATAL_ERROR "expected ten scores, found:\n${output}")
endif()

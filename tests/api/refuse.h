// Requests to the system that are refused on demand: of memory, pages, threads and files. Who links
// or preloads refuse.cpp has its functions in place of the C library's.
#pragma once

#include <atomic>

namespace refuse {

enum class What { memory, pages, threads, files };
inline constexpr const char *names[] = {"memory", "pages", "threads", "files"};

// Which requests: the n-th after `arm` alone; or all from it on; or, of memory, those from it on
// for which there is no room any more in what was in use just then.
enum class How { once, on, full };
inline constexpr const char *how_names[] = {"once", "on", "full"};

void arm(What what, How how, long n);
void disarm();
long counted(What what); // requests since `arm`

} // namespace refuse

// lathe cache: what --cache-dir keeps.
#include "runtime/cache.h"
#include "cli/verbs.h"

#include <ctime>
#include <fmt/chrono.h>

namespace lathe::core::cli {
namespace {

struct CacheVerbOptions {
  std::string directory, what;
};

Result<void> list(const Cache &cache) {
  LATHE_TRY(const auto entries, cache.entries());
  int64_t bytes = 0;
  for (const Cache::Entry &entry : entries) {
    bytes += entry.bytes;
    fmt::print("{:<42}{:>14}  {:%F %T}  {}\n", entry.name, grouped(entry.bytes),
               fmt::localtime(entry.used.tv_sec),
               entry.problem.empty() ? entry.description : entry.problem);
  }
  fmt::print("{} entries, {} bytes\n", entries.size(), grouped(bytes));
  return {};
}

Result<void> verify_all(const Cache &cache, const std::string &directory) {
  LATHE_TRY(const auto entries, cache.entries(true, usable_cpus()));
  size_t bad = 0;
  for (const Cache::Entry &entry : entries) {
    if (entry.problem.empty()) continue;
    ++bad;
    fmt::print("{}: {}\n", entry.name, entry.problem);
  }
  if (bad > 0)
    return fail(Error{.code = ErrorCode::mismatch,
                      .message = fmt::format("{} of {} entries cannot be used; they are made anew "
                                             "when they are needed",
                                             bad, entries.size()),
                      .file = directory});
  fmt::print("{} entries, all good\n", entries.size());
  return {};
}

Result<void> run_cache(const CacheVerbOptions &o) {
  CacheOptions options;
  options.directory = o.directory;
  LATHE_TRY(const Cache cache, Cache::open(options));
  if (o.what == "clear") return cache.clear();
  return o.what == "verify" ? verify_all(cache, o.directory) : list(cache);
}

} // namespace

void add_cache(CLI::App &app, Action &action) {
  auto *verb = app.add_subcommand("cache", "list, empty or check the cache");
  auto o = std::make_shared<CacheVerbOptions>();
  verb->add_option("WHAT", o->what, "ls, clear or verify")
      ->required()
      ->check(CLI::IsMember({"ls", "clear", "verify"}));
  verb->add_option("--cache-dir", o->directory, "where it is")
      ->envname("LATHE_CACHE_DIR")
      ->required();
  verb->callback([&action, o] { action = [o] { return run_cache(*o); }; });
}

} // namespace lathe::core::cli

// One function per verb: registers its options, runs when chosen. Errors go to main.
#pragma once

#include "cli/model.h"

#include <CLI/CLI.hpp>
#include <functional>

namespace lathe::core::cli {

// What main runs once the arguments are parsed.
using Action = std::function<Result<void>()>;

void add_run(CLI::App &app, Action &action);
void add_bench(CLI::App &app, Action &action);
void add_profile(CLI::App &app, Action &action);
void add_compile(CLI::App &app, Action &action);
void add_inspect(CLI::App &app, Action &action);
void add_dump(CLI::App &app, Action &action);
void add_verify(CLI::App &app, Action &action);
void add_check(CLI::App &app, Action &action);
void add_explain(CLI::App &app, Action &action);
void add_cache(CLI::App &app, Action &action);

// The options that every verb with a model takes.
void add_model_options(CLI::App &verb, ModelOptions &options, bool needs_model = true);

} // namespace lathe::core::cli

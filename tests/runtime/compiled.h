// Graphs as compiled code, compared with the reference: what differential tests share.
#pragma once

#include "ir/compare.h"
#include "ir/evaluate.h"
#include "runtime/executable.h"
#include "tests/random_graph.h"

#include <doctest/doctest.h>
#include <functional>

namespace lathe::core {

// Picks of algorithms that follow no other property of a seed.
inline uint64_t picks(uint64_t seed) { return seed * 0x9e3779b97f4a7c15 >> 40; }

std::vector<Target> runnable_targets(); // of this machine

Result<std::shared_ptr<const Executable>> try_compile(const Graph &graph, const Target &target,
                                                      const std::vector<std::string> &disabled = {},
                                                      const PlanOptions &plan = {});
// Copies of the outputs.
Result<std::vector<Tensor>> try_run(const std::shared_ptr<const Executable> &executable,
                                    const std::vector<Tensor> &inputs, int64_t images,
                                    const std::shared_ptr<ThreadPool> &pool);
// The same, which end the test case where they fail.
std::shared_ptr<const Executable> compile(const Graph &graph, const Target &target,
                                          const std::vector<std::string> &disabled = {},
                                          const PlanOptions &plan = {});
std::vector<Tensor> run(const std::shared_ptr<const Executable> &executable,
                        const std::vector<Tensor> &inputs, int64_t images,
                        const std::shared_ptr<ThreadPool> &pool);

bool same_bits(const Tensor &a, const Tensor &b);

// What is wrong with the results for three images; empty if they are near the reference, and the
// same bits for any number of threads and at any position of a batch.
Result<std::string> fault(const std::shared_ptr<const Executable> &executable,
                          const std::vector<Tensor> &inputs, const std::vector<Tensor> &references);
void check(const std::shared_ptr<const Executable> &executable, const std::vector<Tensor> &inputs,
           const std::vector<Tensor> &references);

} // namespace lathe::core

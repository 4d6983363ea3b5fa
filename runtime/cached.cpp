// What the entries hold, and what they depend on.
#include "runtime/cached.h"

#include "ir/evaluate.h"
#include "ir/system/threads.h"
#include "runtime/cache_content.h"
#include "runtime/prebuilt.h"

#include <bit>
#include <fmt/format.h>
#include <fstream>
#include <unordered_map>

namespace lathe::core {
namespace {

template <typename T> void add(CacheKey &key, const T &value) {
  std::string identity;
  append_identity(identity, value);
  key.add(identity);
}

// Recipes with the hashes of their data, for all of a plan's weights together.
class RecipeKeys {
public:
  // Hashes all data that the plan's weights are made from.
  RecipeKeys(const Plan &plan, int threads) {
    for (const Weight &weight : plan.weights) {
      if (lies_in_place(weight)) continue;
      for (const Constant *part : recipe_parts(weight.constant))
        if (numbers_.emplace(part, int64_t(parts_.size())).second) parts_.push_back(part);
    }
    hashes_.resize(parts_.size());
    std::vector<Result<void>> hashed(parts_.size());
    parallel_each(parts_.size(), threads, [&](size_t i, int) {
      const Tensor &data = parts_[i]->data;
      if (parts_[i]->op || !data.defined()) return;
      auto hash = content_hash({data.raw(), data.bytes()});
      if (hash)
        hashes_[i] = *hash;
      else
        hashed[i] = std::unexpected(std::move(hash).error());
    });
    for (Result<void> &each : hashed)
      if (!each) read = std::move(each);
  }
  Result<void> read; // the data, for its hashes
  void add_to(CacheKey &key) const {
    for (size_t i = 0; i < parts_.size(); ++i) {
      const Constant &part = *parts_[i];
      key.add(to_string(part.type.dtype));
      key.add(to_string(part.type.shape));
      key.add(part.op ? print(*part.op) : std::string());
      for (const ConstantRef &input : part.inputs) key.add(numbers_.at(input.get()));
      key.add(part.splat ? int64_t(std::bit_cast<uint32_t>(*part.splat)) : int64_t{-1});
      for (uint64_t half : hashes_[i]) key.add(std::bit_cast<int64_t>(half));
    }
  }
  int64_t number(const ConstantRef &constant) const { return numbers_.at(constant.get()); }

private:
  std::vector<const Constant *> parts_;
  std::unordered_map<const Constant *, int64_t> numbers_;
  std::vector<std::array<uint64_t, 2>> hashes_;
};

Result<CacheKey> weights_key(const Plan &plan, int threads) {
  CacheKey key("weights");
  const RecipeKeys recipes(plan, threads);
  LATHE_CHECK(recipes.read);
  recipes.add_to(key);
  for (const Weight &weight : plan.weights) {
    if (lies_in_place(weight)) continue;
    key.add(recipes.number(weight.constant));
    add(key, weight.packing);
    add(key, weight.panels);
    add(key, weight.winograd);
    key.add(weight.bytes);
  }
  return key;
}

CacheKey code_key(std::span<const KernelSpec> specs, const Target &target) {
  CacheKey key("code");
  std::string identity;
  append_code_identity(identity, target);
  key.add(identity);
  for (const KernelSpec &spec : specs) add(key, spec);
  return key;
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name") || line.starts_with("CPU part")) return line;
  return {};
}

// The plan without measurements shows all that decides what there is to measure.
CacheKey costs_key(const Plan &untuned) {
  CacheKey key("costs");
  key.add(cpu_name());
  add(key, untuned.target);
  key.add(print(untuned));
  return key;
}

// --- Looking and storing

std::optional<Cache::Content> find(const Cache &cache, const CacheKey &key, int threads,
                                   CacheLookup &lookup) {
  auto found = cache.find(key, threads);
  if (found) return std::move(*found);
  lookup.note = to_string(found.error());
  return std::nullopt;
}

void store(const Cache &cache, const CacheKey &key, std::string_view description,
           std::span<const std::byte> content, int threads, CacheLookup &lookup) {
  if (auto stored = cache.store(key, description, content, threads); !stored)
    lookup.note = to_string(stored.error());
}

} // namespace

Result<CodeImage> cached_image(const Cache *cache, std::span<const KernelSpec> specs,
                               const Target &target, int threads, const Budget &budget,
                               CacheLookup &lookup) {
  const CodeArchive &prebuilt = prebuilt_code();
  if (!cache) return compile_image(specs, target, threads, budget, &prebuilt);
  const CacheKey key = code_key(specs, target);
  if (auto content = find(*cache, key, threads, lookup))
    if (auto image = decode_image(content->bytes())) {
      lookup.found = true;
      return std::move(*image);
    }
  LATHE_TRY(CodeImage image, compile_image(specs, target, threads, budget, &prebuilt));
  const std::string content = encode(image);
  store(*cache, key, fmt::format("{} kernels for {}", specs.size(), target.name),
        std::as_bytes(std::span(content)), threads, lookup);
  return image;
}

Result<PackedWeights> cached_weights(const Cache *cache, const Plan &plan, int threads,
                                     const Budget &budget, CacheLookup &lookup) {
  const size_t bytes = made_bytes(plan);
  if (!cache || bytes == 0) return PackedWeights::pack(plan, threads, budget);
  LATHE_TRY(const CacheKey key, weights_key(plan, threads));
  if (auto content = find(*cache, key, threads, lookup); content && content->size == bytes) {
    lookup.found = true;
    return PackedWeights::restore(plan, std::move(content->memory));
  }
  LATHE_TRY(PackedWeights weights, PackedWeights::pack(plan, threads, budget));
  store(*cache, key, plan.name, weights.made(), threads, lookup);
  return weights;
}

Result<MeasuredCosts> cached_costs(const Cache *cache, const Graph &graph, const Target &target,
                                   const PlanOptions &options, const TuneOptions &tuning,
                                   CacheLookup &lookup) {
  if (!cache) return measure_algorithms(graph, target, options, tuning);
  LATHE_TRY(const Plan untuned, make_plan(graph, target, options, tuning.budget));
  const CacheKey key = costs_key(untuned);
  if (auto content = find(*cache, key, 1, lookup)) {
    const std::span<const std::byte> bytes = content->bytes();
    const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    if (auto costs = decode_costs(text)) {
      lookup.found = true;
      return std::move(*costs);
    }
  }
  LATHE_TRY(MeasuredCosts costs, measure_algorithms(graph, target, options, tuning));
  const std::string text = encode(costs);
  store(*cache, key, untuned.name, std::as_bytes(std::span(text)), 1, lookup);
  return costs;
}

} // namespace lathe::core

// Walks over recipes without recursion: they may be deep and share parts.
#include "frontend/constants.h"

#include <algorithm>
#include <unordered_set>

namespace lathe::core {

bool is_named(const Constant &constant) {
  return !constant.name.empty() && !constant.op && !constant.splat;
}
bool unbound(const Constant &constant) { return is_named(constant) && !constant.data.defined(); }

void for_each_part(const ConstantRef &root, const std::function<void(const Constant &)> &visit) {
  std::unordered_set<const Constant *> seen{root.get()};
  std::vector<const Constant *> stack{root.get()};
  while (!stack.empty()) {
    const Constant &constant = *stack.back();
    stack.pop_back();
    visit(constant);
    for (const ConstantRef &input : constant.inputs)
      if (seen.insert(input.get()).second) stack.push_back(input.get());
  }
}

void for_each_unbound(const ConstantRef &root, const std::function<void(const Constant &)> &visit) {
  for_each_part(root, [&](const Constant &part) {
    if (unbound(part)) visit(part);
  });
}

ConstantRef with_data(const ConstantRef &root,
                      const std::function<Tensor(const Constant &)> &data_of) {
  std::unordered_map<const Constant *, ConstantRef> done;
  std::vector<ConstantRef> stack{root};
  while (!stack.empty()) {
    const ConstantRef constant = stack.back();
    const size_t waiting = stack.size();
    for (const ConstantRef &input : constant->inputs)
      if (!done.contains(input.get())) stack.push_back(input);
    if (stack.size() > waiting) continue;
    stack.pop_back();
    if (done.contains(constant.get())) continue;
    ConstantRef &result = done[constant.get()] = constant;
    if (is_named(*constant)) {
      if (Tensor data = data_of(*constant); data.defined())
        result = bound_constant(constant->name, std::move(data));
    } else if (std::ranges::any_of(constant->inputs,
                                   [&](auto &input) { return done.at(input.get()) != input; })) {
      auto copy = std::make_shared<Constant>(*constant);
      for (ConstantRef &input : copy->inputs) input = done.at(input.get());
      result = copy;
    }
  }
  return done.at(root.get());
}

} // namespace lathe::core

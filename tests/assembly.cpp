#include "tests/assembly.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstring>
#include <map>
#include <set>
#include <sstream>

namespace lathe::core {
namespace {

bool is_label(const std::string &line) { return line.ends_with(':'); }

std::string mnemonic(const std::string &line) { return line.substr(0, line.find('\t')); }

// A branch's target.
std::string last_operand(const std::string &line) {
  const size_t space = line.find_last_of("\t ,");
  return space == std::string::npos ? "" : line.substr(space + 1);
}

// How a target spells what a hot loop consists of.
class Dialect {
public:
  Dialect(const Target &target, int64_t lanes, bool frame_pointer)
      : x86_(target.arch == Arch::x86_64), fma_(target.fma) {
    width_ = !x86_ ? ".4s" : lanes == 16 ? "%zmm" : lanes == 8 ? "%ymm" : "%xmm";
    stack_ = {x86_ ? "(%rsp" : "[sp"};
    if (frame_pointer) stack_.push_back(x86_ ? "(%rbp" : "[x29");
  }
  bool multiplies(const std::string &line) const { return is(line, {"mulps", "fmul"}); }
  bool adds(const std::string &line) const { return is(line, {"addps", "fadd"}); }
  bool spills(const std::string &line) const {
    return moves_vector(line) && std::ranges::any_of(stack_, [&](std::string_view place) {
             return line.find(place) != std::string::npos;
           });
  }

private:
  bool is(const std::string &line, std::initializer_list<std::string_view> unfused) const {
    const std::string name = mnemonic(line);
    const bool fused = name == "fmla" || (name.starts_with("vfmadd") && name.ends_with("ps"));
    return line.find(width_) != std::string::npos &&
           (fma_ ? fused : std::ranges::find(unfused, name) != unfused.end());
  }
  bool moves_vector(const std::string &line) const {
    if (x86_)
      return std::ranges::any_of(std::array{"%xmm", "%ymm", "%zmm"}, [&](const char *reg) {
        return line.find(reg) != std::string::npos;
      });
    const size_t first = line.find_first_not_of("\t {", line.find('\t')); // q0, or v0 in braces
    return first != std::string::npos && std::strchr("bhsdqv", line[first]) &&
           std::isdigit(line[first + 1]);
  }
  bool x86_, fma_;
  std::string_view width_;
  std::vector<std::string_view> stack_;
};

// Without one, its register is a register like others.
bool has_frame_pointer(const AssemblyFunction &function) {
  return std::ranges::any_of(function.lines, [](const std::string &line) {
    return line == "movq\t%rsp, %rbp" || line.starts_with("add\tx29, sp") || line == "mov\tx29, sp";
  });
}

using Lines = std::set<size_t>;

// Which lines may run next, by line.
std::vector<std::vector<size_t>> successors(const AssemblyFunction &function) {
  std::map<std::string, size_t> labels;
  for (size_t i = 0; i < function.lines.size(); ++i)
    if (is_label(function.lines[i])) labels[function.lines[i]] = i;
  std::vector<std::vector<size_t>> next(function.lines.size());
  for (size_t i = 0; i < function.lines.size(); ++i) {
    const std::string &line = function.lines[i], name = mnemonic(line);
    if (auto label = labels.find(last_operand(line) + ":"); label != labels.end())
      next[i].push_back(label->second);
    const bool leaves = name == "jmp" || name == "b" || name == "ret" || name == "retq";
    if (!leaves && i + 1 < next.size()) next[i].push_back(i + 1);
  }
  return next;
}

// What can be reached from `from` without `without`.
Lines reachable(const std::vector<std::vector<size_t>> &next, size_t from, size_t without) {
  Lines seen;
  std::vector<size_t> todo{from};
  while (!todo.empty()) {
    const size_t line = todo.back();
    todo.pop_back();
    if (line == without || !seen.insert(line).second) continue;
    todo.insert(todo.end(), next[line].begin(), next[line].end());
  }
  return seen;
}

// Natural loops: lines that lead back to a label without which none of them can be reached.
std::vector<Lines> loops_of(const AssemblyFunction &function) {
  const auto next = successors(function);
  std::vector<std::vector<size_t>> previous(next.size());
  for (size_t i = 0; i < next.size(); ++i)
    for (size_t to : next[i]) previous[to].push_back(i);
  std::vector<Lines> loops;
  for (size_t head = 0; head < next.size(); ++head) {
    if (previous[head].size() + (head == 0) < 2) continue;
    const Lines others = reachable(next, 0, head);
    Lines loop;
    for (size_t from : previous[head])
      if (!others.contains(from)) loop.merge(reachable(previous, from, head));
    if (loop.empty()) continue;
    loop.insert(head);
    loops.push_back(std::move(loop));
  }
  return loops;
}

} // namespace

std::vector<AssemblyFunction> functions_of(const std::string &assembly) {
  std::vector<AssemblyFunction> functions;
  std::istringstream stream(assembly);
  bool inside = false;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with(".Lfunc_end")) inside = false;
    if (is_label(line) && !line.starts_with('.')) {
      functions.push_back({line.substr(0, line.size() - 1), {}});
      inside = true;
    } else if (inside && is_label(line)) {
      functions.back().lines.push_back(line);
    } else if (inside && line.starts_with('\t') && !line.starts_with("\t.")) {
      functions.back().lines.push_back(line.substr(1));
    }
  }
  return functions;
}

std::vector<HotLoop> hot_loops(const AssemblyFunction &function, const Target &target,
                               int64_t lanes) {
  const Dialect dialect(target, lanes, has_frame_pointer(function));
  std::vector<Lines> hot = loops_of(function);
  std::erase_if(hot, [&](const Lines &loop) {
    return std::ranges::none_of(
        loop, [&](size_t line) { return dialect.multiplies(function.lines[line]); });
  });
  std::vector<HotLoop> result;
  for (const Lines &lines : hot) {
    if (std::ranges::any_of(hot, [&](const Lines &other) {
          return other.size() < lines.size() && std::ranges::includes(lines, other);
        }))
      continue;
    HotLoop &loop = result.emplace_back();
    for (size_t i : lines) {
      const std::string &line = function.lines[i];
      loop.text += (is_label(line) ? line : "\t" + line) + "\n";
      if (is_label(line)) continue;
      ++loop.instructions;
      loop.multiplies += dialect.multiplies(line);
      loop.adds += dialect.adds(line);
      if (dialect.spills(line)) loop.spills.push_back(line);
    }
  }
  return result;
}

} // namespace lathe::core

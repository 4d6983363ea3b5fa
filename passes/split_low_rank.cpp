// A convolution whose weights have low rank becomes a bottleneck of two, where that costs half
// the multiplies at most: the weights w[m,c,i,j] as a matrix of C columns (c) by M*h*w rows have
// rank r when r of the columns make all others,
//   w[m,c,i,j] = sum over r of w[m,p(r),i,j] * a[r,c]     ->  a 1x1 of r channels, then w[:,p(r)]
// or, as a matrix of M rows (m),
//   w[m,c,i,j] = sum over r of b[m,r] * w[p(r),c,i,j]     ->  w[p(r)], then a 1x1 from r channels
// (an interpolative decomposition; Halko, Martinsson and Tropp 2011, section 3.2.3). Only exactly
// low rank counts, up to the rounding of f32. Most weights have full rank, which a small part of
// them proves.
#include "ir/system/mapping.h"
#include "passes/pipeline.h"

#include <Eigen/Dense>
#include <cmath>
#include <map>
#include <tuple>

namespace lathe::core {
namespace {

using Matrix = Eigen::MatrixXd;

constexpr double worth = 0.5;             // of the multiplies
constexpr int64_t most_rank = 512;        // that is looked for: a decomposition takes its time
constexpr double least_pivot = 1e-4;      // of the largest: what rounding leaves is far below
constexpr double largest_residual = 4e-6; // of the largest weight in a row

// The weights with column `i` for channel `i` of dimension `axis` (0: output, 1: input).
struct Unfolded {
  const Tensor &weights;
  size_t axis;
  int64_t columns() const { return weights.shape()[axis]; }
  int64_t rows() const { return weights.size() / columns(); }
  int64_t index(int64_t row, int64_t column) const {
    const Shape &s = weights.shape();
    const int64_t taps = s[2] * s[3];
    return axis == 0 ? column * rows() + row : (row / taps * s[1] + column) * taps + row % taps;
  }
  // Of settled weights.
  double operator()(int64_t row, int64_t column) const {
    return double{weights.f32()[size_t(index(row, column))]};
  }
};

// Whether the rank is above `limit`, as far as a part of the matrix shows: lines spread over all of
// it, of each what lies together in its middle. Of weights that cannot be read: yes.
bool surely_above(const Unfolded &a, int64_t limit) {
  const int64_t n = limit + 1, taps = a.weights.shape()[2] * a.weights.shape()[3];
  const int64_t lines = a.axis == 0 ? a.columns() : a.rows();
  const int64_t middle = ((a.axis == 0 ? a.rows() : a.columns()) - n) / 2;
  const int64_t step = a.axis == 0 ? 1 : taps; // between elements of a line
  Eigen::MatrixXf part(n, n);
  std::vector<float> line(size_t(n * step));
  for (int64_t i = 0; i < n; ++i) {
    const int64_t of = i * lines / n;
    const int64_t row = a.axis == 0 ? middle : of, column = a.axis == 0 ? of : middle;
    const int64_t first = a.index(row, column) - (a.axis == 0 ? 0 : of % taps);
    const std::span<std::byte> bytes = std::as_writable_bytes(std::span(line));
    const std::byte *const from = a.weights.raw() + first * int64_t(sizeof(float));
    if (!copy_bytes({from, bytes.size()}, bytes.data())) return true;
    for (int64_t k = 0; k < n; ++k) {
      const float x = line[size_t(k * step + (a.axis == 0 ? 0 : of % taps))];
      (a.axis == 0 ? part(k, i) : part(i, k)) = x;
    }
  }
  const Eigen::PartialPivLU<Eigen::MatrixXf> lu(part);
  const auto pivots = lu.matrixLU().diagonal().cwiseAbs();
  return pivots.minCoeff() > float(least_pivot) * pivots.maxCoeff();
}

struct Basis {
  std::vector<int64_t> columns; // that make all others
  Matrix coefficients;          // basis columns x columns
};
// The columns that make all others, if there are at most `limit`: found on some rows, spread over
// all, and then tried on every row. Columns are compared as if the largest weight of each were one,
// and errors with the largest of their row, so that small channels count as much as large ones.
std::optional<Basis> find_basis(const Unfolded &a, int64_t limit) {
  Eigen::RowVectorXd scale = Eigen::RowVectorXd::Zero(a.columns()), row(a.columns());
  auto read = [&](int64_t r) {
    for (int64_t c = 0; c < a.columns(); ++c) row[c] = a(r, c);
  };
  for (int64_t r = 0; r < a.rows(); ++r) {
    read(r);
    if (!row.allFinite()) return std::nullopt;
    scale = scale.cwiseMax(row.cwiseAbs());
  }
  for (int64_t c = 0; c < a.columns(); ++c) { // of equal columns the first, whatever the rounding
    const double first = 1 - 1e-3 * double(c) / double(a.columns());
    scale[c] = scale[c] > 0 ? first / scale[c] : 1;
  }

  const int64_t rows = std::min(a.rows(), 2 * limit + 8);
  Matrix part(rows, a.columns());
  for (int64_t r = 0; r < rows; ++r) {
    read(r * a.rows() / rows);
    part.row(r) = row.cwiseProduct(scale);
  }
  Eigen::ColPivHouseholderQR<Matrix> qr(part);
  qr.setThreshold(least_pivot);
  const int64_t rank = qr.rank();
  if (rank < 1 || rank > limit) return std::nullopt;
  Basis basis;
  for (int64_t r = 0; r < rank; ++r) basis.columns.push_back(qr.colsPermutation().indices()[r]);
  // Below the diagonal lies what the decomposition keeps for itself.
  const Matrix top = qr.matrixR().topRows(rank).triangularView<Eigen::Upper>();
  basis.coefficients = top.leftCols(rank).triangularView<Eigen::Upper>().solve(top) *
                       qr.colsPermutation().transpose();

  Eigen::RowVectorXd chosen(rank);
  for (int64_t r = 0; r < a.rows(); ++r) {
    read(r);
    row = row.cwiseProduct(scale).eval();
    for (int64_t k = 0; k < rank; ++k) chosen[k] = row[basis.columns[size_t(k)]];
    const double wrong = (chosen * basis.coefficients - row).cwiseAbs().maxCoeff();
    if (!(wrong <= largest_residual * row.cwiseAbs().maxCoeff())) return std::nullopt;
  }
  for (int64_t c = 0; c < a.columns(); ++c)
    for (int64_t k = 0; k < rank; ++k)
      basis.coefficients(k, c) *= scale[basis.columns[size_t(k)]] / scale[c];
  return basis;
}

// The multiplies of `conv` through `rank` channels in the middle, per output pixel, as a line in
// the rank: the 1x1 in front of it works on input pixels, the one behind it on output pixels.
double multiplies_per_rank(const Graph &graph, const Node &node, size_t axis) {
  const Shape &x = graph.shape(node.inputs[0]), &y = graph.shape(node.outputs[0]),
              &w = graph.shape(node.inputs[1]);
  const auto in = double(x[2] * x[3]), out = double(y[2] * y[3]);
  const auto taps = double(w[2] * w[3]);
  return axis == 1 ? in * double(w[1]) + out * taps * double(w[0])
                   : out * (taps * double(w[1]) + double(w[0]));
}

ConstantRef gathered(const ConstantRef &weights, size_t axis, const std::vector<int64_t> &which) {
  const auto count = int64_t(which.size());
  return computed_constant(Gather{int64_t(axis)},
                           {weights, literal_constant(Tensor::of(which, {count}))})
      .value();
}

struct Halves {
  Node first, second;
};
// The two convolutions; the second makes the node's result.
Halves split(Graph &graph, Names &names, const Node &node, size_t axis, const Basis &basis) {
  const Conv &conv = std::get<Conv>(node.op);
  const ConstantRef weights = graph.constant(node.inputs[1]);
  const auto rank = int64_t(basis.columns.size()), channels = int64_t(basis.coefficients.cols());
  Tensor mixing(DType::f32, axis == 1 ? Shape{rank, channels, 1, 1} : Shape{channels, rank, 1, 1});
  for (int64_t r = 0; r < rank; ++r)
    for (int64_t c = 0; c < channels; ++c)
      mixing.f32_mutable()[size_t(axis == 1 ? r * channels + c : c * rank + r)] =
          float(basis.coefficients(r, c));
  const ValueId pointwise = graph.add_constant(node.name + ".mixing", literal_constant(mixing));
  const ValueId window =
      graph.add_constant(node.name + ".basis", gathered(weights, axis, basis.columns));
  Conv first, second = conv;
  if (axis == 0) {
    first = conv;
    first.bias = false;
    second = Conv{};
    second.bias = conv.bias;
  }
  const Shape &x = graph.shape(node.inputs[0]), &y = graph.shape(node.outputs[0]);
  const Shape between = axis == 1 ? Shape{x[0], rank, x[2], x[3]} : Shape{y[0], rank, y[2], y[3]};
  graph.values.push_back({node.name + ".basis", {DType::f32, between}, nullptr});
  const auto middle = ValueId(graph.values.size() - 1);
  Halves halves;
  halves.first = {names.unused(node.name + ".basis"),
                  first,
                  {node.inputs[0], axis == 1 ? pointwise : window},
                  {middle},
                  node.source,
                  {}};
  halves.second = node;
  halves.second.op = second;
  halves.second.inputs[0] = middle;
  halves.second.inputs[1] = axis == 1 ? window : pointwise;
  return halves;
}

// What is known of a matrix: that its rank is above a limit, or a basis, or neither.
struct Finding {
  bool above = false;
  std::optional<Basis> basis;
};
// Layers may share weights, which are looked at once: by their data, shape, axis and limit.
using Findings = std::map<std::tuple<const std::byte *, Shape, size_t, int64_t>, Finding>;

const Finding &look(const Unfolded &matrix, int64_t limit, Findings &known) {
  const auto [place, fresh] = known.try_emplace(
      {matrix.weights.raw(), matrix.weights.shape(), matrix.axis, limit}, Finding{});
  Finding &finding = place->second;
  if (!fresh) return finding;
  finding.above = surely_above(matrix, limit);
  if (finding.above) return finding;
  const auto data = settled(matrix.weights); // packing says what is wrong with its file
  if (data) finding.basis = find_basis({*data, matrix.axis}, limit);
  return finding;
}

std::optional<Halves> try_split(Graph &graph, Names &names, const Node &node, Findings &known) {
  auto *conv = std::get_if<Conv>(&node.op);
  if (!conv || conv->groups != 1 || !conv->pre.empty() || !conv->post.empty()) return std::nullopt;
  const ConstantRef &weights = graph.constant(node.inputs[1]);
  if (!weights || !weights->data.defined()) return std::nullopt; // a recipe, or not bound yet
  const Shape &y = graph.shape(node.outputs[0]);
  const double before = double(y[2] * y[3]) * double(weights->data.size());
  int64_t above = 0; // what the rank of a 1x1, whose matrices are each other's transpose, is above
  for (size_t axis : {1u, 0u}) {
    const Unfolded matrix{weights->data, axis};
    const auto pays = int64_t(worth * before / multiplies_per_rank(graph, node, axis));
    const auto limit = std::min({pays, matrix.columns() - 1, matrix.rows() - 1, most_rank});
    if (limit <= above) continue;
    const Finding &finding = look(matrix, limit, known);
    if (finding.above && conv->kernel == Size2{}) above = limit;
    if (finding.basis) return split(graph, names, node, axis, *finding.basis);
  }
  return std::nullopt;
}

} // namespace

Result<int64_t> split_low_rank(Graph &graph, const Budget &budget) {
  Names names(graph);
  Findings known;
  int64_t changed = 0;
  std::vector<Node> nodes;
  for (size_t n = 0; n < graph.nodes.size(); ++n) {
    LATHE_CHECK(budget.check("looking for weights of low rank"));
    if (auto halves = try_split(graph, names, graph.nodes[n], known)) {
      nodes.push_back(std::move(halves->first));
      nodes.push_back(std::move(halves->second));
      ++changed;
    } else {
      nodes.push_back(std::move(graph.nodes[n]));
    }
  }
  graph.nodes = std::move(nodes);
  return changed;
}

} // namespace lathe::core

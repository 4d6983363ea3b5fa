// A profile as a table, as JSON, as a page and as a trace.
#include "cli/markup.h"
#include "cli/profile.h"

#include <algorithm>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace lathe::core::cli {
namespace {

using Json = nlohmann::ordered_json;

// Names come from files: bytes that are not UTF-8 are replaced.
std::string dump(const Json &json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string shortened(const std::string &text, size_t most) {
  return text.size() <= most ? text : text.substr(0, most - 2) + "..";
}

// Whether it is among the kernels that take longest.
std::vector<bool> longest(const Profile &p, size_t top) {
  std::vector<size_t> order(p.kernels.size());
  for (size_t k = 0; k < order.size(); ++k) order[k] = k;
  std::ranges::stable_sort(order, std::greater(), [&](size_t k) { return p.kernels[k].ms; });
  std::vector<bool> chosen(p.kernels.size(), top == 0);
  for (size_t i = 0; i < std::min(top, order.size()); ++i) chosen[order[i]] = true;
  return chosen;
}

std::string headline(const Profile &p) {
  return fmt::format("{}, batch {}, {} thread{}, {} runs; {} ({}): peak {:.1f} GFLOP/s, memory "
                     "{:.1f} GB/s",
                     p.model, p.batch, p.threads, p.threads > 1 ? "s" : "", p.runs, p.isa, p.cpu,
                     p.peak_gflops, p.bandwidth_gbs);
}

// Where no arithmetic is counted, its rate says nothing.
std::string rate(const ProfiledKernel &k, double value) {
  return k.facts.flops > 0 ? fmt::format("{:.1f}", value) : "";
}

Json candidates_json(const Choice &choice) {
  Json list = Json::array();
  for (size_t i = 0; i < choice.candidates.size(); ++i) {
    const Candidate &c = choice.candidates[i];
    list.push_back({{"algorithm", algorithm_name(c.winograd)},
                    {"estimated_us", 1e6 * c.estimated},
                    {"measured_us", c.measured ? Json(1e6 * *c.measured) : Json()},
                    {"extra_weight_bytes", c.extra_bytes},
                    {"verdict", verdict(choice, i)}});
  }
  return list;
}

Json kernel_json(const Profile &p, const ProfiledKernel &k) {
  return {{"name", k.name},
          {"layers", k.sources},
          {"algorithm", k.facts.algorithm},
          {"candidates", candidates_json(k.choice)},
          {"shape", k.facts.shape},
          {"median_ms", k.ms},
          {"share", k.share},
          {"flops", int64_t(k.facts.flops)},
          {"gflops", k.gflops()},
          {"percent_of_peak", p.percent_of_peak(k)},
          {"input_bytes", k.facts.input_bytes},
          {"weight_bytes", k.facts.weight_bytes},
          {"output_bytes", k.facts.output_bytes},
          {"bytes", k.facts.bytes()},
          {"gb_per_s", k.gbs()},
          {"roofline_ms", k.roof_ms},
          {"times_roofline", k.roofs()}};
}

// The time as a bar, and within it what the roofline allows; all bars to one scale.
std::string bar(const ProfiledKernel &k, double longest_ms) {
  constexpr double width = 260;
  const double time = width * k.ms / longest_ms, roof = width * k.roof_ms / longest_ms;
  return fmt::format("<svg width=\"{0}\" height=\"12\"><rect width=\"{1:.1f}\" height=\"12\" "
                     "fill=\"#e0a458\"/><rect width=\"{2:.1f}\" y=\"3\" height=\"6\" "
                     "fill=\"#33658a\"/></svg>",
                     width, time, std::min(roof, width));
}

constexpr std::string_view style =
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:1px 8px;text-align:right;white-space:nowrap}"
    "th{border-bottom:1px solid #888}td.t,th.t{text-align:left}"
    "tr:nth-child(even){background:#f4f4f4}tfoot td{border-top:1px solid #888;font-weight:bold}"
    "svg{vertical-align:middle}";

} // namespace

std::string ProfiledKernel::layers() const {
  if (sources.empty()) return "(output's layout)";
  if (sources.size() == 1) return sources[0];
  return fmt::format("{} +{}", sources[0], sources.size() - 1);
}

std::string profile_table(const Profile &p, size_t top) {
  const std::vector<bool> shown = longest(p, top);
  size_t layers = 6, algorithm = 9, shape = 5;
  for (size_t i = 0; i < p.kernels.size(); ++i) {
    if (!shown[i]) continue;
    const ProfiledKernel &k = p.kernels[i];
    layers = std::max(layers, std::min<size_t>(k.layers().size(), 36));
    algorithm = std::max(algorithm, std::min<size_t>(k.facts.algorithm.size(), 30));
    shape = std::max(shape, k.facts.shape.size());
  }
  std::string text =
      fmt::format("{}\n{:>6}  {:<{}}  {:<{}}  {:<{}}{:>10}{:>8}{:>9}{:>8}{:>9}{:>8}{:>10}{:>8}\n",
                  headline(p), "kernel", "layers", layers, "algorithm", algorithm, "shape", shape,
                  "ms", "share", "GFLOP/s", "% peak", "MB", "GB/s", "roof ms", "x roof");
  for (size_t i = 0; i < p.kernels.size(); ++i) {
    if (!shown[i]) continue;
    const ProfiledKernel &k = p.kernels[i];
    text += fmt::format("{:>6}  {:<{}}  {:<{}}  {:<{}}{:>10.4f}{:>7.1f}%{:>9}{:>8}{:>9.3f}{:>8.1f}"
                        "{:>10.4f}{:>8.2f}\n",
                        i, shortened(k.layers(), layers), layers,
                        shortened(k.facts.algorithm, algorithm), algorithm, k.facts.shape, shape,
                        k.ms, 100 * k.share, rate(k, k.gflops()), rate(k, p.percent_of_peak(k)),
                        1e-6 * double(k.facts.bytes()), k.gbs(), k.roof_ms, k.roofs());
  }
  const size_t before_times = 6 + 2 + layers + 2 + algorithm + 2 + shape;
  return text + fmt::format("{:<{}}{:>10.4f}{:>8}{:>44.4f}{:>8.2f}\n", "sum of all", before_times,
                            p.total_ms, "", p.roof_ms, p.total_ms / p.roof_ms);
}

std::string profile_json(const Profile &p) {
  Json kernels = Json::array();
  for (const ProfiledKernel &k : p.kernels) kernels.push_back(kernel_json(p, k));
  return dump({{"model", p.model},
               {"batch", p.batch},
               {"threads", p.threads},
               {"isa", p.isa},
               {"cpu", p.cpu},
               {"version", LATHE_VERSION},
               {"runs", p.runs},
               {"peak_gflops", p.peak_gflops},
               {"bandwidth_gb_per_s", p.bandwidth_gbs},
               {"total_ms", p.total_ms},
               {"roofline_ms", p.roof_ms},
               {"kernels", std::move(kernels)}});
}

std::string profile_html(const Profile &p) {
  double longest_ms = 0;
  for (const ProfiledKernel &k : p.kernels) longest_ms = std::max({longest_ms, k.ms, k.roof_ms});
  std::string text = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n"
      "<style>{1}</style></head><body>\n<h1>{0}</h1>\n<p>{2}.</p>\n"
      "<p>Wide bars are medians; the narrow ones within are rooflines: the arithmetic at the peak, "
      "or every byte once at full bandwidth, whichever takes longer. Data that lie in a cache "
      "come faster than that.</p>\n"
      "<table><thead><tr><th>kernel</th><th class=\"t\">layers</th><th class=\"t\">algorithm</th>"
      "<th class=\"t\">shape</th><th class=\"t\">time</th><th>ms</th><th>share</th>"
      "<th>GFLOP/s</th><th>% of peak</th><th>MB</th><th>GB/s</th><th>roofline ms</th>"
      "<th>times roofline</th></tr></thead>\n<tbody>\n",
      escaped(p.model), style, escaped(headline(p)));
  for (size_t i = 0; i < p.kernels.size(); ++i) {
    const ProfiledKernel &k = p.kernels[i];
    text += fmt::format(
        "<tr><td>{}</td><td class=\"t\" title=\"{}\">{}</td><td class=\"t\" title=\"{}\">{}</td>"
        "<td class=\"t\">{}</td><td class=\"t\">{}</td><td>{:.4f}</td><td>{:.1f} %</td><td>{}</td>"
        "<td>{}</td><td>{:.3f}</td><td>{:.1f}</td><td>{:.4f}</td><td>{:.2f}</td></tr>\n",
        i, escaped(fmt::format("{}", fmt::join(k.sources, ", "))), escaped(k.layers()),
        escaped(k.choice.candidates.empty() ? k.name : k.name + ": " + to_string(k.choice)),
        escaped(k.facts.algorithm), escaped(k.facts.shape), bar(k, longest_ms), k.ms, 100 * k.share,
        rate(k, k.gflops()), rate(k, p.percent_of_peak(k)), 1e-6 * double(k.facts.bytes()), k.gbs(),
        k.roof_ms, k.roofs());
  }
  return text + fmt::format("</tbody>\n<tfoot><tr><td></td><td class=\"t\" colspan=\"4\">all</td>"
                            "<td>{:.4f}</td><td></td><td></td><td></td><td></td><td></td>"
                            "<td>{:.4f}</td><td>{:.2f}</td></tr></tfoot></table>\n</body></html>\n",
                            p.total_ms, p.roof_ms, p.total_ms / p.roof_ms);
}

std::string profile_trace(const Profile &p) {
  Json events = Json::array();
  for (auto [what, name] : {std::pair("process_name", headline(p)), {"thread_name", "kernels"}})
    events.push_back(
        {{"name", what}, {"ph", "M"}, {"pid", 1}, {"tid", 1}, {"args", {{"name", name}}}});
  double now = 0; // microseconds
  for (const ProfiledKernel &k : p.kernels) {
    const double took = 1000 * k.typical_ms;
    events.push_back({{"name", k.layers()},
                      {"cat", k.facts.algorithm},
                      {"ph", "X"},
                      {"ts", now},
                      {"dur", took},
                      {"pid", 1},
                      {"tid", 1},
                      {"args", kernel_json(p, k)}});
    now += took;
  }
  return dump({{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}});
}

} // namespace lathe::core::cli

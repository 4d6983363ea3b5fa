// What fmt's headers declare, defined once for all of Lathe. Debian has fmt as a shared library,
// which programs that use Lathe would need too, and header-only, which doubles what most files take
// to compile.
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {
template FMT_API auto thousands_sep_impl<char>(locale_ref) -> thousands_sep_result<char>;
template FMT_API auto decimal_point_impl(locale_ref) -> char;
template FMT_API auto locale_ref::get<std::locale>() const -> std::locale; // for fmt/chrono.h
} // namespace detail
FMT_END_NAMESPACE

// Reflection of plain structs: a struct lists its members as `fields()`, and printing, parsing,
// comparing, hashing and testing go through that list.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace lathe::core {

// One entry of a struct's field list.
template <typename Struct, typename Member> struct Field {
  std::string_view name;
  Member Struct::*member;
};
template <typename Struct, typename Member>
constexpr Field<Struct, Member> field(std::string_view name, Member Struct::*member) {
  return {name, member};
}

template <typename T>
concept HasFields = requires { T::fields(); };

namespace reflection {

struct Anything {
  template <typename T> operator T() const;
};
template <typename T, size_t... i> constexpr bool takes(std::index_sequence<i...>) {
  return requires { T{((void)i, Anything{})...}; };
}
// How many members an aggregate has.
template <typename T, size_t n = 0> constexpr size_t members() {
  if constexpr (takes<T>(std::make_index_sequence<n + 1>{}))
    return members<T, n + 1>();
  else
    return n;
}

} // namespace reflection

// Whether a struct's list has as many entries as the struct has members.
template <HasFields T>
inline constexpr bool lists_all_fields =
    std::tuple_size_v<decltype(T::fields())> == reflection::members<T>();

// --- Leaves: what a struct consists of in the end, in the order of its list; members of members,
// elements of arrays, one by one.

namespace reflection {
template <typename T> inline constexpr size_t array_size = 0;
template <typename T, size_t n> inline constexpr size_t array_size<std::array<T, n>> = n;
} // namespace reflection

template <typename T> constexpr size_t leaves() {
  if constexpr (HasFields<T>)
    return std::apply(
        []<typename... Members>(const Field<T, Members> &...) {
          return (leaves<Members>() + ... + size_t{0});
        },
        T::fields());
  else if constexpr (reflection::array_size<T> > 0)
    return reflection::array_size<T> * leaves<typename T::value_type>();
  else
    return 1;
}

// Which leaf a member begins with; or a member of that, or an element, if there are more of these.
template <typename Element, typename... Rest> constexpr size_t leaf_within(Rest... rest);
template <typename Struct, typename Member, typename... Rest>
constexpr size_t leaf(Member Struct::*member, Rest... rest) {
  size_t before = 0;
  bool found = false;
  auto look = [&]<typename Other>(const Field<Struct, Other> &field) {
    if constexpr (std::is_same_v<Other, Member>) found = found || field.member == member;
    if (!found) before += leaves<Other>();
  };
  std::apply([&](const auto &...f) { (look(f), ...); }, Struct::fields());
  if constexpr (sizeof...(rest) > 0) before += leaf_within<Member>(rest...);
  return before;
}
template <typename Whole, typename... Rest> constexpr size_t leaf_within(Rest... rest) {
  if constexpr (reflection::array_size<Whole> > 0)
    return [](size_t index, auto... more) {
      using Element = typename Whole::value_type;
      if constexpr (sizeof...(more) > 0)
        return index * leaves<Element>() + leaf_within<Element>(more...);
      return index * leaves<Element>();
    }(size_t(rest)...);
  else
    return leaf(rest...);
}

// Appends all leaves.
template <typename Leaf, typename T> void append_leaves(std::vector<Leaf> &to, const T &value) {
  if constexpr (HasFields<T>) {
    static_assert(lists_all_fields<T>, "a member is missing in fields()");
    std::apply([&](const auto &...f) { (append_leaves(to, value.*(f.member)), ...); }, T::fields());
  } else if constexpr (reflection::array_size<T> > 0) {
    for (const auto &element : value) append_leaves(to, element);
  } else {
    to.push_back(value);
  }
}

// Appends bytes that are the same for two values of a type if and only if all their fields are the
// same, floats by their bits. A struct within that has no list, or whose list is not complete, does
// not compile.
template <typename T> void append_identity(std::string &bytes, const T &value);

namespace reflection {

template <typename T> struct Identity {
  static void append(std::string &bytes, const T &value) {
    if constexpr (HasFields<T>) {
      static_assert(lists_all_fields<T>, "a member is missing in fields()");
      std::apply([&](const auto &...f) { (append_identity(bytes, value.*(f.member)), ...); },
                 T::fields());
    } else {
      static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>, "a struct without fields()");
      bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    }
  }
};
template <> struct Identity<std::string> {
  static void append(std::string &bytes, const std::string &text) {
    append_identity(bytes, text.size());
    bytes += text;
  }
};
template <typename T> struct Identity<std::vector<T>> {
  static void append(std::string &bytes, const std::vector<T> &values) {
    append_identity(bytes, values.size());
    for (const T &value : values) append_identity(bytes, value);
  }
};
template <typename T> struct Identity<std::optional<T>> {
  static void append(std::string &bytes, const std::optional<T> &value) {
    append_identity(bytes, value.has_value());
    if (value) append_identity(bytes, *value);
  }
};
template <typename... Ts> struct Identity<std::variant<Ts...>> {
  static void append(std::string &bytes, const std::variant<Ts...> &value) {
    append_identity(bytes, value.index());
    std::visit([&](const auto &held) { append_identity(bytes, held); }, value);
  }
};

} // namespace reflection

template <typename T> void append_identity(std::string &bytes, const T &value) {
  reflection::Identity<T>::append(bytes, value);
}

} // namespace lathe::core

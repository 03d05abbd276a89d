#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include "CToml.h"
#include <csetjmp>
#include <cstdlib>
#include <cstring>
#include <new>
// The parser takes some of what it has not looked at yet for granted: "[~" fails an assertion (parse_key of
// toml++/impl/parser.inl), which would end PID 1. So a check that fails is an error of the text. It is left by a jump and
// not by an exception, because the programs have no tables for unwinding (rootfs/no-unwinding.ld): what the parser had
// allocated is lost, a few kilobytes of a program that says the error and ends.
static thread_local jmp_buf *checks;
[[noreturn]] static void fail_check() {
  if (!checks) std::abort();
  std::longjmp(*checks, 1);
}
#define TOML_ASSERT(expr) ((expr) ? void() : fail_check())
#undef NDEBUG // With it the same checks are promises to the compiler, and what fails them is undefined.
#include <toml++/toml.h>
#include <vector>

struct ctoml_document {
  toml::table root;
};

static const toml::node &node_of(const ctoml_node *node) { return *reinterpret_cast<const toml::node *>(node); }
static const ctoml_node *wrap(const toml::node &node) { return reinterpret_cast<const ctoml_node *>(&node); }

static bool fails_check(std::string_view text) {
  jmp_buf here;
  checks = &here;
  bool failed = setjmp(here) != 0;
  if (!failed) (void)toml::parse(text);
  checks = nullptr;
  return failed;
}

// The parser ends at the first thing that it does not take: the check fails with every text that has that line, and with
// none that ends before it.
static uint32_t failing_line(std::string_view text) {
  std::vector<size_t> ends;
  for (size_t i = 0; i < text.size(); i++) if (text[i] == '\n') ends.push_back(i + 1);
  ends.push_back(text.size());
  size_t low = 0, high = ends.size() - 1;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (fails_check(text.substr(0, ends[middle]))) high = middle; else low = middle + 1;
  }
  return static_cast<uint32_t>(low + 1);
}

static ctoml_document *parse(std::string_view text, struct ctoml_error *error);

ctoml_document *ctoml_parse(const char *text, size_t length, struct ctoml_error *error) {
  jmp_buf here;
  checks = &here;
  if (setjmp(here) != 0) {
    checks = nullptr;
    std::strcpy(error->problem, "expected a key, a value or a table's name");
    error->line = failing_line(std::string_view{text, length});
    return nullptr;
  }
  ctoml_document *document = parse(std::string_view{text, length}, error);
  checks = nullptr;
  return document;
}

static ctoml_document *parse(std::string_view text, struct ctoml_error *error) {
  toml::parse_result result = toml::parse(text);
  if (!result) {
    auto description = result.error().description();
    size_t count = description.size() < sizeof error->problem - 1 ? description.size() : sizeof error->problem - 1;
    std::memcpy(error->problem, description.data(), count);
    error->problem[count] = 0;
    error->line = result.error().source().begin.line;
    return nullptr;
  }
  return new (std::nothrow) ctoml_document{std::move(result).table()};
}

void ctoml_free(ctoml_document *document) { delete document; }

const ctoml_node *ctoml_root(const ctoml_document *document) { return wrap(document->root); }

enum ctoml_kind ctoml_kind_of(const ctoml_node *node) {
  switch (node_of(node).type()) {
    case toml::node_type::table: return CTOML_TABLE;
    case toml::node_type::array: return CTOML_ARRAY;
    case toml::node_type::string: return CTOML_STRING;
    case toml::node_type::integer: return CTOML_INTEGER;
    case toml::node_type::boolean: return CTOML_BOOLEAN;
    case toml::node_type::floating_point: return CTOML_FLOAT;
    default: return CTOML_TIME;
  }
}

int64_t ctoml_integer(const ctoml_node *node) {
  const auto *value = node_of(node).as_integer();
  return value ? value->get() : 0;
}

bool ctoml_boolean(const ctoml_node *node) {
  const auto *value = node_of(node).as_boolean();
  return value && value->get();
}

const char *ctoml_string(const ctoml_node *node, size_t *length) {
  const auto *value = node_of(node).as_string();
  *length = value ? value->get().size() : 0;
  return value ? value->get().data() : "";
}

void ctoml_each(const ctoml_node *node, void *context,
                void (*body)(void *, const char *, size_t, uint32_t, uint32_t, const ctoml_node *)) {
  if (const auto *table = node_of(node).as_table()) {
    for (const auto &[key, value] : *table) {
      const auto place = key.source().begin;
      body(context, key.str().data(), key.str().size(), place.line, place.column, wrap(value));
    }
  } else if (const auto *array = node_of(node).as_array()) {
    for (const auto &value : *array) {
      const auto place = value.source().begin;
      body(context, nullptr, 0, place.line, place.column, wrap(value));
    }
  }
}

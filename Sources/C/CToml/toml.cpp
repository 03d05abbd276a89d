#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
#include "CToml.h"
#include <cstring>
#include <new>
#include <toml++/toml.h>

struct ctoml_document {
  toml::table root;
};

static const toml::node &node_of(const ctoml_node *node) { return *reinterpret_cast<const toml::node *>(node); }
static const ctoml_node *wrap(const toml::node &node) { return reinterpret_cast<const ctoml_node *>(&node); }

ctoml_document *ctoml_parse(const char *text, size_t length, struct ctoml_error *error) {
  toml::parse_result result = toml::parse(std::string_view{text, length});
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
